"""What strategies may cost: where a modelled cost ends a phase, when a measured one does, and what is left then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller.advance import Policy, advance_node
from llmzero_hpc.controller.limits import PhaseLimits
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import (
    STRATEGY_BUDGET,
    Attempt,
    Checkpoint,
    CheckpointReference,
    Ending,
    Job,
    Node,
    NodeStatus,
    StopDecision,
    TransitionKind,
)
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.sections import Budget, Hardware

ROOT_SECONDS, ROOT_STEPS = 40.0, 10


def limits(
    strategy: float | None, search: float | None = None, *, modelled: bool = True, owes: bool = False
) -> PhaseLimits:
    budget = Budget(
        strategy_device_hours=None if strategy is None else strategy / 3600,
        device_hours=None if search is None else search / 3600,
    )
    hardware = Hardware(device="cpu", cost="modelled" if modelled else "measured")
    settings = {
        "name": "limits",
        "trainer": "lean",
        "model": "builtin:chains",
        "task": {"name": "chains"},
        "budget": budget,
        "hardware": hardware,
    }
    config = SearchConfig.model_validate(settings)
    return PhaseLimits(config, lambda _node, _now: owes)


def attempt(seconds: float, **fields: object) -> Attempt:
    return replace(Attempt(1, "lz-1", 0.0, job=Job("1", "lz-1", 0.0), device_seconds=seconds), **fields)  # type: ignore[arg-type]


def two_phases(resume_step: int, steps: int) -> Tree:
    """A root of ten steps at four seconds, and a child that is being trained."""
    root = Node(
        0, TransitionKind.SCRATCH, None, 0, 0.0, NodeStatus.COMPLETED,
        attempts=(attempt(ROOT_SECONDS),), checkpoints=(Checkpoint(5, 0.1), Checkpoint(10, 0.2)), last_step=ROOT_STEPS,
    )  # fmt: skip
    child = Node(
        1, TransitionKind.EVOLVE, 0, 0, 0.0, NodeStatus.RUNNING,
        resume=CheckpointReference(0, resume_step), total_steps=steps, attempts=(attempt(0.0),),
    )  # fmt: skip
    return Tree((root, child))


def rows(first: int, count: int, seconds: float = 1.0) -> Series:
    return Series(tuple(MetricRow(first + place, {"step_seconds": seconds}) for place in range(count)))


@given(resume=st.sampled_from([5, 10]), limit=st.floats(41.0, 100.0), search=st.none() | st.floats(41.0, 100.0))
def test_a_phase_ends_with_the_step_that_uses_up_what_its_strategy_may_cost(
    resume: int, limit: float, search: float | None
) -> None:
    tree = two_phases(resume, 200)
    node, paid = limits(limit, search).charged(tree, tree[1], attempt(0.0), rows(resume + 1, 150), 9.0)
    inherited = 4.0 * resume
    strategy, whole = limit - inherited, float("inf") if search is None else search - ROOT_SECONDS
    assert node.stop is not None
    spent = node.stop.step - resume
    assert spent - 1 < min(strategy, whole) <= spent
    assert (node.stop.author == STRATEGY_BUDGET) == (strategy <= whole or spent >= strategy)
    assert paid.device_seconds == pytest.approx(spent)
    assert node.is_leaf == (limit - inherited - spent < limit / 10)


def test_judgements_before_the_limit_come_first() -> None:
    tree = two_phases(10, 200)
    node, paid = limits(50.0, owes=True).charged(tree, tree[1], attempt(0.0), rows(11, 50), 9.0)
    assert node.stop is None
    assert paid.device_seconds == pytest.approx(9.0), "up to the step before"


def test_a_stop_that_came_before_the_limit_stands() -> None:
    tree = two_phases(10, 200)
    judged = StopDecision(13, "behind", "playbook", 1.0)
    node, paid = limits(50.0).charged(tree, replace(tree[1], stop=judged), attempt(0.0), rows(11, 50), 9.0)
    assert node.stop == judged
    assert paid.device_seconds == pytest.approx(3.0)
    assert not node.is_leaf


def test_a_phase_whose_last_step_uses_it_up_is_not_stopped() -> None:
    tree = two_phases(10, 10)
    node, _ = limits(50.0).charged(tree, tree[1], attempt(0.0), rows(11, 10), 9.0)
    assert node.stop is None
    assert node.is_leaf


def test_without_a_limit_nothing_ends() -> None:
    tree = two_phases(10, 200)
    node, paid = limits(None).charged(tree, tree[1], attempt(0.0), rows(11, 50), 9.0)
    assert (node.stop, node.is_leaf, paid.device_seconds) == (None, False, 50.0)


def test_a_measured_cost_ends_a_phase_when_it_is_seen() -> None:
    tree = two_phases(10, 200)
    seen = rows(11, 5)
    node, paid = limits(50.0, modelled=False).charged(tree, tree[1], attempt(9.9), seen, 9.0)
    assert (node.stop, node.is_leaf) == (None, True)
    assert paid.device_seconds == 9.9, "the clock's word"
    node, _ = limits(50.0, modelled=False).charged(tree, tree[1], attempt(10.0), seen, 9.0)
    assert node.stop is not None
    assert (node.stop.step, node.stop.author) == (15, STRATEGY_BUDGET)
    early, _ = limits(50.0, modelled=False).charged(tree, tree[1], attempt(10.0), Series(()), 9.0)
    assert early.stop is not None
    assert early.stop.step == 10, "no step of it counts"


def test_earlier_attempts_are_paid_for_too() -> None:
    tree = two_phases(10, 200)
    lost = attempt(6.0, ending=Ending.PREEMPTED)
    node = replace(tree[1], attempts=(lost, attempt(4.0)))
    found, _ = limits(50.0, modelled=False).charged(tree, node, attempt(4.0), rows(11, 5), 9.0)
    assert found.stop is not None


@pytest.mark.parametrize(
    ("author", "status"), [(STRATEGY_BUDGET, NodeStatus.COMPLETED), ("playbook", NodeStatus.EARLY_STOPPED)]
)
def test_at_the_end_of_its_strategy_a_phase_is_complete(author: str, status: NodeStatus) -> None:
    stopped = replace(two_phases(10, 200)[1], stop=StopDecision(15, "why", author, 1.0))
    over = attempt(5.0, ending=Ending.STOPPED, ended_at=2.0)
    assert advance_node(stopped, over, Policy(60.0, 1, 3), hold=False).status is status
