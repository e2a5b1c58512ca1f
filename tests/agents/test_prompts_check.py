"""`prompts check`: renders everything, and tells what is wrong with a folder of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from llmzero_hpc.cli.main import app
from llmzero_hpc.errors import LLMZeroError

if TYPE_CHECKING:
    from pathlib import Path


def check(*arguments: str | Path) -> str:
    """What it prints; a mistake of the user's is raised as the error that the program tells."""
    result = CliRunner().invoke(app, ["prompts", "check", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_every_prompt_is_tried() -> None:
    lines = check().splitlines()
    agents = ["proposer", "proposer", "early_stopper", "error_analyzer", "skill_agent", "skill_agent"]
    assert [line.split()[0] for line in lines] == agents
    assert all(0 < int(line.partition("about ")[2].split()[0]) < 12_000 for line in lines)


def test_they_can_be_read(tmp_path: Path) -> None:
    check("--out", tmp_path / "there")
    found = {path.relative_to(tmp_path / "there").as_posix() for path in (tmp_path / "there").rglob("*.*")}
    assert {"proposer/evolve/system.md", "proposer/scratch/user.md", "proposer/evolve/curves_1.png"} <= found
    assert {"early_stopper/a_run_that_falls_behind/overlay_1.png", "error_analyzer/out_of_memory/user.md"} <= found


def test_own_files_are_named_with_what_they_leave_out(tmp_path: Path) -> None:
    (tmp_path / "early_stopper").mkdir()
    (tmp_path / "early_stopper" / "user.md").write_text("Node {{ node }}: {{ comparison }} {{ metrics }}")
    first = check("--own", tmp_path).splitlines()[0]
    assert first.startswith("yours: early_stopper/user.md  leaves out: ")
    assert "best_score" in first
    assert "comparison" not in first


@pytest.mark.parametrize(
    ("name", "text", "message", "next_step"),
    [
        ("metric.md", "", "replaces no template", "metrics.md"),
        ("proposer.md", "", "replaces no template", ""),
        ("data.md", "{% if scratch %}{{ chekpoints }}{% endif %}", "writes {{ chekpoints }}", "'checkpoints'"),
        ("data.md", "{% if false %}{{ later", "data.md line 1", "README"),
        ("early_stopper/user.md", "{{ checkpoints }}", "'checkpoints' is undefined", "README"),
    ],
)
def test_a_mistake_is_told(name: str, text: str, message: str, next_step: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(LLMZeroError) as caught:
        check("--own", tmp_path)
    assert message in caught.value.message
    assert next_step in caught.value.next_step


def test_a_folder_that_replaces_nothing_is_a_mistake(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(LLMZeroError):
            check("--own", folder)
