"""The playbook's early stopper: whether a running phase can still overtake the best strategy (section 3.5, figure 9).

Only validation decides, by the rate of improvement rather than the current value alone. The bias is towards letting a
phase run: stopping one that would have won costs the search more than the rest of a phase that loses. What is asked is
what its strategy may come to, as other phases can continue it, by the step at which the best one is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from llmzero_hpc.agents.base import StopAnswer, StopRequest
from llmzero_hpc.agents.playbook.trend import Point, fallen_to_nothing, scatter
from llmzero_hpc.search.metrics import VALIDATION_SCORE, Series

AUTHOR = "playbook"

LEAST_VALIDATIONS = 2
"""Validations of the phase before it is judged: one has no rate of improvement."""
LEAST_SHARE = 0.25
"""Share of the phase before it is judged: a fresh optimizer and a new task of learning need some steps to show."""
RECENT = 4
"""Validations over which the best recent rate is looked for."""
LEAST_MARGIN = 0.05
"""Share of the best score that is granted in any case. Scores scatter less along one run, whose validation rows are the
same, than they are worth: with 500 rows, one of 0.2 has a standard error of 0.018."""
MARGIN = 2.0
"""Standard deviations of the observed scatter that are granted on top of the extrapolation."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """An optimistic guess of the best validation score that a strategy can reach by a step."""

    step: int
    rate: float
    """Best recent improvement a step, never negative."""
    margin: float
    reach: float


def judge(request: StopRequest) -> StopAnswer:
    """CONTINUE, or STOP with the trajectory that says so; a pure function of the validation scores in the request."""
    points = request.series.points(VALIDATION_SCORE)
    if len(points) < LEAST_VALIDATIONS:
        return _go_on(f"{len(points)} validations of this phase: too early to judge")
    best = max(value for _, value in points)
    if best >= request.best_score:
        return _go_on(f"validation reached {best:.3g}, the best so far is {request.best_score:.3g}")
    collapse = fallen_to_nothing(points)
    if collapse is not None:
        return StopAnswer(
            True,
            f"validation collapsed from {collapse.before:.3g} to {collapse.after:.3g} at step {collapse.after_step}, "
            f"below the best {request.best_score:.3g}: {_shown(points)}",
            AUTHOR,
        )
    first, step = request.node.first_step, points[-1][0]
    if step - first + 1 < LEAST_SHARE * (request.last_step - first + 1):
        return _go_on(f"step {step} of {first} to {request.last_step}: too early to judge")
    noise = _noise(request)
    if noise is None:
        return _go_on("too few validations to tell noise from progress")
    if _keeps_up(request, best, step, noise):
        return _go_on(f"at step {step} it is not clearly behind the best strategy at the same step")
    if _gains_speed(points, noise):
        return _go_on(f"validation gains speed: {_shown(points)}")
    margin = max(MARGIN * noise, LEAST_MARGIN * request.best_score)
    outlook = extrapolate(points, max(request.last_step, _last_step(request.best)), margin)
    if outlook.reach >= request.best_score:
        return _go_on(
            f"improving by {outlook.rate:.2g} a step it may reach {outlook.reach:.3g} by step {outlook.step}; "
            f"the best so far is {request.best_score:.3g}"
        )
    return StopAnswer(
        True,
        f"validation {_shown(points)} improves by {outlook.rate:.2g} a step at best; by step {outlook.step} it "
        f"reaches at most {outlook.reach:.3g} (noise margin {outlook.margin:.2g} included), below the best "
        f"{request.best_score:.3g}",
        AUTHOR,
    )


def extrapolate(points: tuple[Point, ...], step: int, margin: float) -> Outlook:
    """The highest of the recent scores, plus the best recent rate carried on until `step`, plus a margin.

    The rate does not decay: a phase often begins slowly after a change, and gains speed before its curve bends down.
    """
    recent = points[-RECENT:]
    level = max(value for _, value in recent)
    end_step, end = recent[-1]
    rates = [(end - value) / (end_step - at) for at, value in recent[:-1]]
    rates += [(later - value) / (after - at) for (at, value), (after, later) in pairwise(recent)]
    rate = max(0.0, *rates)
    return Outlook(step, rate, margin, level + rate * max(0, step - end_step) + margin)


def _noise(request: StopRequest) -> float | None:
    """Scatter of validation scores: the largest of what this phase, its strategy and the best strategy show."""
    known = [
        [value for _, value in series.points(VALIDATION_SCORE)]
        for series in (request.series, request.strategy, request.best)
    ]
    return max((scatter(values) for values in known if len(values) > LEAST_VALIDATIONS), default=None)


def _gains_speed(points: tuple[Point, ...], noise: float) -> bool:
    """Two clear gains in a row, the second no slower: learning may be taking off, which no extrapolation foresees."""
    if len(points) <= LEAST_VALIDATIONS:
        return False
    (first, low), (second, middle), (third, high) = points[-3:]
    clear = min(middle - low, high - middle) > MARGIN * noise
    return clear and (high - middle) / (third - second) >= (middle - low) / (second - first)


def _keeps_up(request: StopRequest, best: float, step: int, noise: float) -> bool:
    """Whether the best strategy was no clearly better by this step: a first phase is not measured by a fourth alone."""
    incumbent: Series = request.best.up_to(step)
    scores = [value for _, value in incumbent.points(VALIDATION_SCORE)]
    return bool(scores) and best >= max(scores) - MARGIN * noise


def _last_step(series: Series) -> int:
    return series.rows[-1].step if series.rows else 0


def _go_on(reason: str) -> StopAnswer:
    return StopAnswer(False, reason, AUTHOR)


def _shown(points: tuple[Point, ...]) -> str:
    return ", ".join(f"{value:.3g} at step {step}" for step, value in points[-RECENT:])
