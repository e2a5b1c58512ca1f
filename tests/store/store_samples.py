"""A search and a tree with something in every field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.node import (
    Attempt,
    Checkpoint,
    CheckpointReference,
    Ending,
    Job,
    Node,
    NodeStatus,
    Rationale,
    StopDecision,
    TransitionKind,
)
from llmzero_hpc.search.tree import Evaluation, Tree
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPT = Attempt(
    number=1, name="lz-sample-0-1", intended_at=2.0, job=Job("17", "lz-sample-0-1", 2.5), started_at=3.0,
    ended_at=9.5, ending=Ending.PREEMPTED, exit_code=-9, device_seconds=6.5, missing_since=9.0,
)  # fmt: skip


def record(**settings: object) -> SearchRecord:
    config = SearchConfig.model_validate(
        {
            "name": "sample",
            "model": "builtin:chains",
            "task": {"name": "chains"},
            "configuration": {"epochs": 0.5, "overrides": {"warmup_ratio": 0.1}},
            "bounds": {"rollouts": {"high": 16}},
        }
        | settings
    )
    return SearchRecord.new(config, train_rows=512, now=1_800_000_000.25)


def new_search(root: Path, **settings: object) -> SearchDirectory:
    return SearchDirectory.create(root, record(**settings))


def small_tree(size: int = 1) -> Tree:
    """A chain of planned phases."""
    nodes = (Node(i, TransitionKind.EVOLVE, i - 1 if i else None, seed=i, created_at=1.0) for i in range(size))
    return Tree(tuple(nodes))


def rich_tree() -> Tree:
    root = Node(
        id=0, kind=TransitionKind.SCRATCH, parent=None, seed=7, created_at=1.5, status=NodeStatus.EARLY_STOPPED,
        configuration=Configuration(overrides={"flag": True, "whole": 1, "real": 1.0, "word": 'ümlaut "x" \\ \n'}),
        total_steps=30, rationale=Rationale("default", "Wo es anfängt", ("a", "b"), "rule"), attempts=(ATTEMPT,),
        checkpoints=(Checkpoint(10, 0.25), Checkpoint(20, 1 / 3)), last_step=23,
        stop=StopDecision(20, "flat", "playbook", 9.0),
    )  # fmt: skip
    repair = Node(
        id=1, kind=TransitionKind.DEBUG, parent=0, seed=8, created_at=10.0, repairs=0,
        resume=CheckpointReference(0, 20), cancel_requested=True, pruned=True, problem="out of memory",
    )  # fmt: skip
    return Tree((root, repair), Evaluation(CheckpointReference(0, 20), "test", (ATTEMPT,), 0.5, {"long": 0.5}))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
