"""A whole search as a newcomer runs it: real GRPO through TRL, real processes, twice with the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from searches import short_demo

from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.report.data import without_clock
from llmzero_hpc.report.reading import read
from llmzero_hpc.report.strategy_file import best_adapter, best_strategy
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.trainers.checkpoints import is_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory
    from llmzero_hpc.store.strategy_file import StrategyFile

pytestmark = [pytest.mark.training, pytest.mark.slow]


def run_demo(root: Path) -> SearchDirectory:
    directory = short_demo(root)
    with Daemon(directory) as daemon:
        assert daemon.loop().finished
    return directory


def timeless(strategy: StrategyFile) -> StrategyFile:
    """Without when and for how long it was trained."""
    phases = tuple(phase.model_copy(update={"device_hours": None}) for phase in strategy.phases)
    return strategy.model_copy(update={"created": "", "phases": phases})


def test_the_same_seed_trains_the_same_search_to_the_digit(tmp_path: Path) -> None:
    first, second = run_demo(tmp_path / "first"), run_demo(tmp_path / "second")
    tree = first.read_tree()
    assert len(tree) == 3
    assert all(node.status in {NodeStatus.COMPLETED, NodeStatus.EARLY_STOPPED} for node in tree)
    assert tree[1].resume is not None, "a phase resumed another's adapter"
    assert tree.evaluation is not None
    assert tree.evaluation.score is not None
    assert without_clock(read(first, metrics="all")) == without_clock(read(second, metrics="all"))
    for node in tree:
        for checkpoint in node.checkpoints:
            name = f"step_{checkpoint.step}/adapter_model.safetensors"
            assert (first.phase(node.id).checkpoints / name).read_bytes() == (
                second.phase(node.id).checkpoints / name
            ).read_bytes()
    assert is_adapter(best_adapter(first))
    assert timeless(best_strategy(first)) == timeless(best_strategy(second))
