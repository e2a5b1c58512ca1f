"""What the tests of the command line share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from command_line import CommandLine, Said, quick, run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLMZERO_STATE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(tmp_path, capsys)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A folder with a finished search, and what `run` said."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "search.yaml").write_text(yaml.safe_dump(quick(name="done")), encoding="utf-8")
    return folder, run("run", "search.yaml", folder=folder)


@pytest.fixture
def finished(first_run: tuple[Path, Said], capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands where the finished search is the only one; whoever changes it makes a copy."""
    return CommandLine(first_run[0], capsys)
