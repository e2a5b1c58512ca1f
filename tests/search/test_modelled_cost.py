"""A modelled cost counts each step once, and a budget ends at one step, whatever was killed and made again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.modelled_cost import attempt_seconds, last_step_within
from llmzero_hpc.search.node import Attempt, Node, NodeStatus, StopDecision, TransitionKind

SECONDS = st.lists(st.floats(0.01, 5.0), min_size=1, max_size=20)


def series_of(seconds: list[float], first: int = 1) -> Series:
    return Series(tuple(MetricRow(first + place, {"step_seconds": one}) for place, one in enumerate(seconds)))


def node_of(*charged: float) -> Node:
    attempts = tuple(
        Attempt(number=number, name=f"a{number}", intended_at=0.0, device_seconds=seconds)
        for number, seconds in enumerate(charged, start=1)
    )
    return Node(0, TransitionKind.SCRATCH, None, 0, 0.0, NodeStatus.RUNNING, attempts=attempts)


@given(seconds=SECONDS, kill=st.integers(0, 20), devices=st.integers(1, 4))
def test_a_phase_that_was_killed_costs_what_an_unbroken_one_does(seconds: list[float], kill: int, devices: int) -> None:
    """The first attempt had made some steps, which the second may have to make again."""
    made = seconds[:kill]
    first = attempt_seconds(node_of(0.0), series_of(made), devices)
    second = attempt_seconds(node_of(first, 0.0), series_of(seconds), devices)
    assert first + second == pytest.approx(sum(seconds) * devices)


@given(seconds=SECONDS, stop=st.integers(0, 20))
def test_steps_after_a_stop_cost_nothing(seconds: list[float], stop: int) -> None:
    node = replace(node_of(0.0), stop=StopDecision(stop, "behind", "playbook", 0.0))
    assert attempt_seconds(node, series_of(seconds), 1) == pytest.approx(sum(seconds[:stop]))


@given(seconds=SECONDS, budget=st.floats(0.0, 100.0), first=st.integers(1, 50))
def test_a_budget_ends_with_the_first_step_that_uses_it_up(seconds: list[float], budget: float, first: int) -> None:
    step = last_step_within(series_of(seconds, first), 1, budget)
    if step is None:
        assert sum(seconds) < budget + 1e-9
        return
    place = step - first
    assert sum(seconds[: place + 1]) >= budget - 1e-9
    assert sum(seconds[:place]) < budget + 1e-9
    # Rows that came in later change nothing.
    assert last_step_within(series_of([*seconds, 1.0], first), 1, budget) == step
