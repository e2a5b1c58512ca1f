"""Rows of metrics and the series they make."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.search.metrics import MetricRow, Series


def row(step: int, **values: float) -> MetricRow:
    return MetricRow(step, values)


def test_points_are_finite_and_in_order() -> None:
    series = Series((row(1, kl=0.1), row(2, kl=math.nan), row(3), row(4, kl=math.inf), row(5, kl=0.2)))
    assert series.points("kl") == ((1, 0.1), (5, 0.2))
    assert series.points("entropy") == ()


@pytest.mark.parametrize(("score", "seen"), [(0.0, 0.0), (0.5, 0.5), (math.nan, None), (math.inf, None)])
def test_only_a_finite_validation_score_counts(score: float, seen: float | None) -> None:
    assert row(1, val_score=score).validation_score == seen


def test_up_to_is_inclusive() -> None:
    series = Series((row(1), row(2), row(3)))
    assert [item.step for item in series.up_to(2).rows] == [1, 2]
    assert series.up_to(0) == Series()


def test_names_come_in_canonical_order_then_subtasks() -> None:
    series = Series((row(1, **{"val_score/long": 0.1, "kl": 0.0}), row(2, **{"val_score/a": 0.1, "reward_mean": 1.0})))
    assert series.names() == ("reward_mean", "kl", "val_score/a", "val_score/long")


def test_a_run_voids_what_an_earlier_one_did_from_where_it_resumed() -> None:
    series = Series.continued([row(1, kl=1.0), row(2, kl=2.0), row(3, kl=3.0), row(4), row(2, kl=2.5), row(3, kl=3.5)])
    assert series.points("kl") == ((1, 1.0), (2, 2.5), (3, 3.5))


runs = st.tuples(st.integers(1, 20), st.integers(1, 9)).map(lambda run: list(range(run[0], sum(run))))


@given(st.lists(runs, min_size=1, max_size=5))
def test_each_step_counts_once_from_the_last_run_that_made_it(steps_of_runs: list[list[int]]) -> None:
    rows = [row(step, kl=float(run)) for run, steps in enumerate(steps_of_runs) for step in steps]
    series = Series.continued(rows)
    # From the last run backwards: each lends what stands before the first step of all that came after it.
    expected: dict[int, float] = {}
    for run, steps in reversed(list(enumerate(steps_of_runs))):
        limit = min((steps[0] for steps in steps_of_runs[run + 1 :]), default=math.inf)
        expected |= {step: float(run) for step in steps if step < limit}
    assert series.points("kl") == tuple(sorted(expected.items()))
    assert Series.continued(series.rows) == series
