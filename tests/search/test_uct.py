"""Equations 5 to 8 against arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.statistics import ScoreRange, SubtreeStatistics
from llmzero_hpc.search.uct import exploitation, normalized, shaped, uct_of_child, uct_of_new_child, value

RULES = Rules()
SCORES = ScoreRange(0.2, 0.6)


def runs(total: int, scores: list[float], failed: int = 0, early: int = 0, in_flight: int = 0) -> SubtreeStatistics:
    return SubtreeStatistics(total, len(scores), failed, early, sum(scores), in_flight)


def test_equation_7_by_hand() -> None:
    # (0.4 - 0.2) / (0.6 - 0.2) = 0.5
    assert normalized(0.4, SCORES) == pytest.approx(0.5)
    # (e^(0.5/0.3) - 1) / (e^(1/0.3) - 1) = (5.294490 - 1) / (28.031625 - 1) = 4.294490 / 27.031625 = 0.158869
    assert shaped(0.5, 0.3) == pytest.approx(0.158869, abs=1e-6)
    assert shaped(0.0, 0.3) == 0.0
    assert shaped(1.0, 0.3) == 1.0


def test_equal_scores_are_worth_one() -> None:
    assert value(0.4, ScoreRange(0.4, 0.4), RULES) == 1.0


def test_no_score_is_worth_nothing() -> None:
    assert value(None, SCORES, RULES) == 0.0


def test_equation_8_by_hand() -> None:
    # Five runs: three scored (0.6, 0.4, 0.2: mean 0.4, value 0.158869), three failed, one stopped early.
    # 3/5 x 0.158869 - 0.5 x (3 - 2)/5 - 0.3 x 1/5 = 0.095321 - 0.1 - 0.06 = -0.064679
    subtree = runs(5, [0.6, 0.4, 0.2], failed=3, early=1)
    assert exploitation(subtree, SCORES, RULES) == pytest.approx(-0.064679, abs=1e-6)


def test_equation_8_shapes_the_mean_and_not_each_score() -> None:
    # Mean 0.4, value 0.158869. The mean of the two values would be (1 + 0) / 2 = 0.5.
    assert exploitation(runs(2, [0.6, 0.2]), SCORES, RULES) == pytest.approx(0.158869, abs=1e-6)


def test_equation_8_forgives_two_failures() -> None:
    assert exploitation(runs(2, [], failed=2), SCORES, RULES) == 0.0
    # 0 - 0.5 x (4 - 2)/4 = -0.25
    assert exploitation(runs(4, [], failed=4), SCORES, RULES) == pytest.approx(-0.25)


def test_equation_8_ignores_runs_in_flight() -> None:
    assert exploitation(runs(2, [0.6, 0.4], in_flight=5), SCORES, RULES) == exploitation(
        runs(2, [0.6, 0.4]), SCORES, RULES
    )
    assert exploitation(runs(0, [], in_flight=1), SCORES, RULES) == 0.0


def test_equation_5_by_hand() -> None:
    # Q = 1 (one run with the best score). 1 + 1.414 x sqrt(ln 5 / 1) = 1 + 1.414 x 1.268636 = 2.793852
    parent, child = runs(5, [0.6, 0.4, 0.2, 0.2, 0.2]), runs(1, [0.6])
    assert uct_of_child(parent, child, SCORES, RULES) == pytest.approx(2.793852, abs=1e-5)


def test_equation_6_by_hand() -> None:
    # N_fair = 5 / (1 + 1) = 2.5; 0.158869 + 1.414 x sqrt(ln 5 / 2.5) = 0.158869 + 1.414 x 0.802356 = 1.293400
    parent = runs(5, [0.6, 0.4, 0.2, 0.2, 0.2])
    assert uct_of_new_child(parent, 0.4, 1, SCORES, RULES) == pytest.approx(1.293400, abs=1e-5)


def test_runs_in_flight_are_visits() -> None:
    # N(p) = 2 + 3 = 5 and N(c) = 1 + 1 = 2: 1 + 1.414 x sqrt(ln 5 / 2) = 1 + 1.414 x 0.897061 = 2.268444
    parent, child = runs(2, [0.6, 0.2], in_flight=3), runs(1, [0.6], in_flight=1)
    assert uct_of_child(parent, child, SCORES, RULES) == pytest.approx(2.268444, abs=1e-5)


@given(st.floats(0, 1), st.floats(0.01, 10))
def test_shaping_is_the_papers_formula(score: float, temperature: float) -> None:
    paper = (math.exp(score / temperature) - 1) / (math.exp(1 / temperature) - 1)
    assert shaped(score, temperature) == pytest.approx(paper, rel=1e-9, abs=1e-12)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-6, 1e6))
def test_shaping_keeps_order_and_range_at_any_temperature(one: float, other: float, temperature: float) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= shaped(low, temperature) <= shaped(high, temperature) + 1e-12 <= 1.0 + 1e-11


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("shaping_temperature", 0.0), ("exploration", -1.0), ("max_evolve_children", 0), ("min_scratch_ratio", math.nan)],
)
def test_rules_refuse_values_without_meaning(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=name):
        Rules(**{name: wrong})  # type: ignore[arg-type]
