"""A whole search with a modelled cost: the same to the digit, cost included, however the controller was disturbed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from tiny_phases import SMALL

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller.creation import create
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.method_sections import GuidebookMethod, LLMZeroMethod
from llmzero_hpc.report.costs import device_unit
from llmzero_hpc.report.data import without_clock
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.configuration import Bounds
from llmzero_hpc.search.node import STRATEGY_BUDGET, NodeStatus, TransitionKind
from llmzero_hpc.search.strategy_cost import LEAST_SHARE, inherited_seconds
from llmzero_hpc.sections import Budget, Hardware

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.sections import FilesTask
    from llmzero_hpc.store.search_directory import SearchDirectory

pytestmark = [pytest.mark.training, pytest.mark.slow]

BUDGET_SECONDS = 1.4
"""Pays one phase and a part of the next, which may begin as nobody knows yet that it is dearer."""


def searched(
    root: Path, model: Path, task: FilesTask, *, ticks_a_controller: int | None, **changes: Any
) -> SearchDirectory:
    config = SearchConfig(
        name="modelled",
        trainer="lean",
        model=str(model),
        task=task,
        configuration=SMALL.changed(epochs=2.0),
        bounds={"max_response_length": Bounds(low=4, high=8)},
        validate_every_steps=3,
        budget=Budget(device_hours=BUDGET_SECONDS / 3600, includes_test=False),
        method=GuidebookMethod(kind="guidebook", lengths=(1.0, 1.3), rollouts=(1.0, 16.0)),
        hardware=Hardware(device="cpu", cost="modelled"),
        tick_seconds=0.1,
        live_views=False,
    )
    directory = create(config.model_copy(update=changes), root, time.time())
    finished = False
    while not finished:
        with Daemon(directory) as daemon:
            for _ in range(ticks_a_controller or 100_000):
                finished = daemon.tick().finished
                if finished:
                    break
                time.sleep(0.1)
    return directory


def test_two_runs_agree_to_the_digit_and_the_budget_ends_both_at_one_step(
    model_folder: Path, task: FilesTask, tmp_path: Path
) -> None:
    first = searched(tmp_path / "first", model_folder, task, ticks_a_controller=None)
    second = searched(tmp_path / "second", model_folder, task, ticks_a_controller=3)
    trees = first.read_tree(), second.read_tree()
    assert [node.status for node in trees[0]] == [NodeStatus.COMPLETED, NodeStatus.EARLY_STOPPED]
    costs = [[node.device_seconds for node in tree] for tree in trees]
    assert costs[0] == costs[1]
    for tree in trees:
        for node in tree:
            rows = [row for row in _rows(first, node.id) if node.stop is None or row.step <= node.stop.step]
            assert node.device_seconds == pytest.approx(sum(row.values["step_seconds"] for row in rows))
    assert BUDGET_SECONDS <= sum(costs[0]) < BUDGET_SECONDS + costs[0][1] / 3, "at most one step above the budget"
    assert [node.status for node in trees[0]] == [node.status for node in trees[1]]
    kept = without_clock(read(first, metrics="all")), without_clock(read(second, metrics="all"))
    assert kept[0] == kept[1]
    assert device_unit(first.record.config) == "modelled CPU-hours"
    assert trees[0].evaluation is not None
    assert trees[0].evaluation.attempts[-1].device_seconds == 0


def test_strategies_end_at_what_one_may_cost_and_another_one_begins(
    model_folder: Path, task: FilesTask, tmp_path: Path
) -> None:
    limit = 0.12
    found = searched(
        tmp_path / "search",
        model_folder,
        task,
        ticks_a_controller=3,
        method=LLMZeroMethod(),
        budget=Budget(iterations=4, strategy_device_hours=limit / 3600, includes_test=False),
    )
    tree = found.read_tree()
    assert len(tree) == 4
    for node in tree:
        assert node.status is NodeStatus.COMPLETED
        inherited = inherited_seconds(tree, node.resume)
        spent = inherited + node.device_seconds
        a_step = max(row.values["step_seconds"] for row in _rows(found, node.id))
        assert spent < limit + a_step
        assert node.is_leaf == (spent > limit * (1 - LEAST_SHARE))
        if node.stop is not None:
            assert node.stop.author == STRATEGY_BUDGET
            assert spent >= limit
        if node.resume is not None:
            assert not tree[node.resume.node].is_leaf
    assert tree[0].is_leaf, "the root is longer than a strategy may be"
    assert tree[1].kind is TransitionKind.SCRATCH


def _rows(directory: SearchDirectory, node: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 - of a test
    from llmzero_hpc.store.metrics_log import read_series

    return read_series([attempt.metrics for attempt in directory.phase(node).attempts()]).rows
