"""`gc`: what can go, that it goes, and that the result stays."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from llmzero_hpc.search.node import Node, NodeStatus, TransitionKind
from llmzero_hpc.store.search_directory import SearchDirectory
from llmzero_hpc.trainers.checkpoints import is_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine


@pytest.fixture
def search(finished: CommandLine) -> SearchDirectory:
    """A copy of the finished search, to be changed."""
    root = finished.folder / "state" / "tidied"
    if not root.exists():
        shutil.copytree(finished.folder / "state" / "done", root)
    return SearchDirectory.open(root)


@pytest.fixture(autouse=True)
def _no_copy_is_left(finished: CommandLine) -> object:
    yield
    shutil.rmtree(finished.folder / "state" / "tidied", ignore_errors=True)


def adapters(search: SearchDirectory) -> set[Path]:
    return {path for path in search.root.glob("phases/*/checkpoints/step_*") if is_adapter(path)}


def test_a_dry_run_says_what_would_go_and_removes_nothing(finished: CommandLine, search: SearchDirectory) -> None:
    before = {path for path in search.root.rglob("*") if path.is_file()}
    said = finished("gc", "tidied", "--dry-run")

    assert said.code == 0
    assert "could go" in said.out
    assert "training state" in said.out
    assert before == {path for path in search.root.rglob("*") if path.is_file()}


def test_what_nothing_needs_goes_and_the_result_stays(
    finished: CommandLine, search: SearchDirectory, tmp_path: Path
) -> None:
    told = json.loads(finished("gc", "tidied", "--dry-run", "--json").out)
    said = json.loads(finished("gc", "tidied", "--json").out)

    assert not told["removed"]
    assert said["removed"]
    assert said["items"] == told["items"]
    assert said["bytes_by_kind"]["training state"]["freed"] == said["bytes_by_kind"]["training state"]["on_disk"] > 0
    assert not list(search.root.glob("phases/*/training_state"))
    assert json.loads(finished("gc", "tidied", "--json").out)["items"] == []
    assert finished("export", tmp_path / "out", "tidied").code == 0


def test_of_a_finished_search_the_best_strategy_alone_can_be_kept(
    finished: CommandLine, search: SearchDirectory, tmp_path: Path
) -> None:
    assert finished("gc", "tidied", "--only-best", "--keep-best", "2").code == 0
    two = adapters(search)
    assert finished("gc", "tidied", "--only-best").code == 0
    one = adapters(search)

    best = search.read_tree().best()
    assert best is not None
    assert best.best is not None
    assert search.phase(best.id).checkpoints / f"step_{best.best.step}" in one
    assert one < two
    assert finished("export", tmp_path / "out", "tidied").code == 0


def test_a_search_with_work_left_keeps_what_may_be_resumed(finished: CommandLine, search: SearchDirectory) -> None:
    tree = search.read_tree()
    search.write_tree(tree.adding(Node(len(tree), TransitionKind.SCRATCH, 0, 1, 0.0, NodeStatus.PLANNED)))

    said = finished.refused("gc", "tidied", "--only-best")
    assert "is not finished" in said.err
