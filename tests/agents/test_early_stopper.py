"""The early stopper looks at validation alone, and lets a phase run while it may still win."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from playbook_samples import HEALTHY, node, phase, stop_request, validations

from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import CheckpointReference

if TYPE_CHECKING:
    from llmzero_hpc.agents.base import StopAnswer, StopRequest

BEST = [0.3, 0.45, 0.55, 0.62, 0.66, 0.68, 0.69, 0.70, 0.70, 0.70]
score = st.floats(0.0, 1.0)
trajectories = st.lists(score, min_size=0, max_size=10)


def judge(request: StopRequest) -> StopAnswer:
    return Playbook().judge(request)


def test_a_dominated_flat_phase_is_stopped_and_the_trajectory_cited() -> None:
    answer = judge(stop_request([0.30, 0.31, 0.30, 0.31], BEST))
    assert answer.stop
    assert answer.author == "playbook"
    assert "0.3 at step 10, 0.31 at step 20, 0.3 at step 30, 0.31 at step 40" in answer.reason
    assert "below the best 0.7" in answer.reason


def test_a_collapse_is_stopped_even_early() -> None:
    answer = judge(stop_request([0.5, 0.5, 0.0, 0.0], BEST, last_step=1000))
    assert answer.stop
    assert "collapsed" in answer.reason


def test_a_phase_behind_but_improving_fast_goes_on() -> None:
    assert not judge(stop_request([0.05, 0.20, 0.35, 0.48], BEST)).stop


def test_a_phase_that_is_not_behind_at_the_same_step_goes_on() -> None:
    assert not judge(stop_request([0.31, 0.46, 0.56, 0.56], BEST, best_score=0.99)).stop


def test_a_phase_that_takes_off_goes_on() -> None:
    taking_off, slowing_down = [0.06, 0.11, 0.15, 0.20], [0.06, 0.11, 0.20, 0.22]
    assert not judge(stop_request(taking_off, BEST, last_step=80, best_score=0.98)).stop
    assert judge(stop_request(slowing_down, BEST, last_step=80, best_score=0.98)).stop


def test_a_slow_beginning_is_carried_on_without_a_decay() -> None:
    """0.1 in ten steps, and fifty to go: along a logarithmic curve it would end at 0.53, and it need not."""
    assert not judge(stop_request([0.25, 0.35], [0.6, 0.7, 0.75], last_step=70)).stop
    assert judge(stop_request([0.25, 0.35], [0.6, 0.7, 0.75], last_step=40)).stop


def test_a_phase_is_measured_by_what_others_may_make_of_it_by_the_length_of_the_best_strategy() -> None:
    longer = [0.4, 0.5, 0.55, 0.58, 0.6, 0.62, 0.65, 0.67, 0.7, 0.75]
    assert judge(stop_request([0.25, 0.35], longer[-4:], last_step=40)).stop
    assert not judge(stop_request([0.25, 0.35], longer, last_step=40)).stop
    flat = [0.25, 0.26, 0.25]
    assert judge(stop_request(flat, longer, last_step=40)).stop, "what does not climb comes to nothing, however long"


def test_a_fresh_start_as_good_as_the_first_phase_of_the_best_strategy_goes_on() -> None:
    best = [0.05, 0.19, 0.26, 0.25, 0.29, 0.33, 0.36, 0.41, 0.44, 0.47, 0.55, 0.68]
    assert not judge(stop_request([0.0, 0.19, 0.24], best, last_step=45)).stop
    assert judge(stop_request([0.0, 0.05, 0.05], best, last_step=45)).stop


def test_one_validation_is_too_few() -> None:
    assert not judge(stop_request([0.0], BEST)).stop
    assert not judge(stop_request([], BEST)).stop


def test_the_first_quarter_is_too_early() -> None:
    flat = [0.10, 0.11, 0.10]
    assert not judge(stop_request(flat, BEST, last_step=200)).stop
    assert judge(stop_request(flat, BEST, last_step=60)).stop


def test_steps_count_from_the_start_of_the_phase() -> None:
    flat = validations([0.30, 0.31, 0.30], first_step=101)
    child = node(3, resume=CheckpointReference(0, 100))
    request = replace(stop_request([], BEST, last_step=300, series=flat), node=child)
    assert not judge(request).stop, "30 of 200 steps"
    assert judge(replace(request, last_step=160)).stop


def test_without_any_measure_of_noise_it_goes_on() -> None:
    assert not judge(stop_request([0.30, 0.30], [0.7], last_step=40)).stop


def test_noise_that_could_explain_the_gap_keeps_a_phase_alive() -> None:
    calm, wild = [0.60, 0.60, 0.60, 0.60], [0.60, 0.50, 0.60, 0.50]
    assert judge(stop_request(calm, [0.65, 0.66, 0.67])).stop
    assert not judge(stop_request(wild, [0.65, 0.66, 0.67])).stop


@given(trajectories, trajectories, score, st.integers(10, 400))
def test_a_phase_that_reached_the_best_is_never_stopped(
    scores: list[float], best: list[float], top: float, last_step: int
) -> None:
    request = stop_request([*scores, top], best, last_step, best_score=top)
    assert not judge(request).stop


@given(trajectories, trajectories, score, score, st.integers(10, 400))
def test_a_higher_best_score_never_turns_stop_into_continue(
    scores: list[float], best: list[float], one: float, other: float, last_step: int
) -> None:
    low, high = sorted((one, other))
    if judge(stop_request(scores, best, last_step, best_score=low)).stop:
        assert judge(stop_request(scores, best, last_step, best_score=high)).stop


@settings(max_examples=60)
@given(trajectories, score, st.integers(10, 200), st.data())
def test_other_metrics_change_nothing(
    scores: list[float], best_score: float, last_step: int, data: st.DataObject
) -> None:
    request = stop_request(scores, BEST, last_step, best_score=best_score)
    names = st.sampled_from([*sorted(set(HEALTHY) - {"val_score"}), "val_score/sub"])
    rows = tuple(
        MetricRow(row.step, {**row.values, **data.draw(st.dictionaries(names, st.floats(allow_nan=True), max_size=3))})
        for row in request.series.rows
    )
    between = tuple(MetricRow(row.step - 1, {"reward_mean": data.draw(score)}) for row in rows)
    noisy = Series(tuple(sorted((*between, *rows), key=lambda row: row.step)))
    assert judge(replace(request, series=noisy, strategy=noisy)) == judge(request)


def test_sick_metrics_with_rising_validation_do_not_stop_a_phase() -> None:
    sick = phase({"kl": lambda t: 50 * t, "entropy": lambda t: 0.0, "reward_mean": lambda t: 0.0})
    assert not judge(stop_request([], [0.3, 0.5, 0.61], last_step=90, series=sick)).stop


def test_a_difference_too_small_to_mean_anything_stops_no_phase() -> None:
    """Validation rows are the same along a run: its scores scatter less than they are worth."""
    flat = [0.188, 0.188, 0.188, 0.188]
    assert not judge(stop_request(flat, [0.195] * 10, best_score=0.195)).stop
    assert judge(stop_request(flat, [0.195] * 10, best_score=0.25)).stop
