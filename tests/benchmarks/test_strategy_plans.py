"""The tasks and comparisons of benchmarks/strategy: readable, repeatable, and the same terms for every method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmzero_hpc.baselines.registry import check_method
from llmzero_hpc.controller.comparison import ComparisonPlan, members, read_plan
from llmzero_hpc.method_sections import AshaMethod, PbtMethod, RandomMethod, TpeMethod

TASKS = ("two_lengths", "near_tie", "trap", "exploration")
FOLDER = Path(__file__).parents[2] / "benchmarks" / "strategy"
PLANS = {name: read_plan(FOLDER / name / "compare.yaml") for name in TASKS}
ABLATIONS = [read_plan(FOLDER / task / "ablations.yaml") for task in ("two_lengths", "trap")]


@pytest.mark.parametrize("name", TASKS)
def test_every_method_can_work_on_every_task(name: str) -> None:
    for one in members(PLANS[name]):
        check_method(one.config)
        assert one.config.hardware.cost == "modelled"
        assert one.config.model == f"builtin:chains-{one.config.task.variant}"
        assert one.config.early_stop.interval_seconds == 0, "decisions depend on no clock"


def test_methods_seeds_and_budget_are_the_same_on_all_tasks() -> None:
    terms = [(plan.methods, plan.seeds, plan.budget, plan.reference) for plan in PLANS.values()]
    assert all(one == terms[0] for one in terms)
    # A phase costs about as much on each, so its length differs.
    starts = [replace(members(plan)[0].config.configuration, epochs=1.0) for plan in PLANS.values()]
    assert all(one == starts[0] for one in starts)


def test_whoever_samples_does_so_from_the_same_ranges() -> None:
    methods = PLANS["trap"].methods
    sampled = [
        one.ranges for one in methods.values() if isinstance(one, RandomMethod | TpeMethod | AshaMethod | PbtMethod)
    ]
    assert len(sampled) == 4
    assert all(ranges == sampled[0] for ranges in sampled)
    bounds = members(PLANS["trap"])[0].config.bounds
    for name, dimension in sampled[0].items():
        if name in bounds:
            values = dimension if isinstance(dimension, tuple) else (dimension.low, dimension.high)
            assert all(bounds[name].low <= value <= bounds[name].high for value in values), name


@pytest.mark.parametrize("plan", ABLATIONS, ids=lambda plan: plan.name)
def test_every_ablation_can_work_and_changes_what_it_is_named_for(plan: ComparisonPlan) -> None:
    found = {one.method: one for one in members(plan)}
    for one in found.values():
        check_method(one.config)
        assert one.config.early_stop.interval_seconds == 0
    assert len({one.changes for one in found.values()}) == len(found)
    assert found["full"].changes == ""


def test_winners_are_confirmed_on_eight_seeds_that_chose_nothing() -> None:
    for plan in PLANS.values():
        assert len(plan.fresh_seeds) == 8
        assert plan.budget.strategy_device_hours == pytest.approx(3 / 16 * plan.budget.device_hours, rel=1e-3)
