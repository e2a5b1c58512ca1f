"""What a phase's metrics show: named, quantified signals. Pure; the same series gives the same signals.

The paper tunes no numeric threshold by hand (appendix G) because a language model reads the curves; rules cannot do
without. The constants here are therefore ratios of a metric to its own earlier level wherever the metric allows it, and
each says why it has its value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median

from llmzero_hpc.agents.playbook.trend import (
    FLAT_SHARE,
    Point,
    Shift,
    Trend,
    fallen_to_nothing,
    mean,
    scatter,
    secant,
    spaced,
    thirds_of,
    trend_of,
)
from llmzero_hpc.search.metrics import VALIDATION_SCORE, Series

KL_SPIKE = 5.0
"""Late peak over the earlier median. KL that grows evenly from zero gives 3, so that this is no steady growth."""
KL_LARGE_SPIKE = 16.0
"""The spike that made the paper's proposer act at once (section 4.3.1): it counts even while validation rises."""
KL_NOTICEABLE = 0.01
"""Nats a token. Below it the policy still answers as the base model does, whatever the ratio."""
ENTROPY_COLLAPSE = 0.25
"""Late entropy over early entropy: three quarters of the exploration are gone."""
TRUNCATED = 0.1
"""From one response in ten on, the limit rather than the answer decides a noticeable part of the rewards."""
HEALING = 0.5
"""Late over early share of cut-off responses: halved while validation improves, the policy learns to stop by itself."""
LENGTH_INFLATION = 1.3
"""Late over early mean length; the paper's inflation from 1630 to 2278 tokens is 1.4 (section 4.3.1)."""
GRADIENT_VANISHED = 1e-3
"""The paper's "low gradient norms (<0.001)" (section 4.3.1)."""
FADED = 0.1
"""Late over early level of the gradient norm or clip fraction: an order of magnitude is gone."""
SILENT_PROMPTS = 0.8
"""Share of prompts without reward variance at which the effective batch is a fifth of the configured one."""
EXPLOSION = 20.0
"""Late peak of the gradient norm over its earlier median: far outside the few-fold scatter of a healthy run."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Everything the rules look at. None means that the metrics do not show it, or are not there."""

    rows: int = 0
    validation: Trend | None = None
    """Validation of the phase, led by the score of the checkpoint it resumed from, where that is known."""
    validations: int = 0
    """Validations of this phase alone."""
    reward: Trend | None = None
    regression: Shift | None = None
    """The whole phase stayed below the score that it started from."""
    collapse: Shift | None = None
    """Reward or validation lost nearly all of its peak, the gradient exploded, or a value was not finite."""
    overfit: Shift | None = None
    """Validation fell while the training reward rose."""
    kl_spike: Shift | None = None
    entropy_collapse: Shift | None = None
    truncation: float | None = None
    """Share of responses cut off in the last third, where it is noticeable and does not heal by itself."""
    length_inflation: Shift | None = None
    gradient_norm: float | None = None
    """Median of the last third."""
    vanishing_gradient: Shift | None = None
    """The gradient norm or the clip fraction faded, or the norm is vanishingly small."""
    silent_prompts: float | None = None
    """Share of prompts without reward variance in the last third, where it is large."""
    reward_level: float | None = None
    """Mean reward of the last third."""
    is_last: bool = False
    """What a strategy may cost ends with the next phase. Nothing that metrics show."""

    @property
    def improving(self) -> bool:
        """Validation rose over the phase and had not stalled at its end."""
        return self.validation is not None and self.validation.rising and not self.validation.stalled

    @property
    def stalled(self) -> bool:
        """Validation brought nothing in the later half."""
        return self.validation is not None and self.validation.stalled

    @property
    def slowing(self) -> bool:
        """It improves, but at less than half of the pace of its beginning, by more than the noise explains."""
        if self.validation is None or not self.improving:
            return False
        points = self.validation.points
        half = len(points) // 2
        early, late = points[: half + 1], points[half:]
        shortfall = (secant(early) / 2 - secant(late)) * (late[-1][0] - late[0][0])
        return shortfall > self.validation.noise


def read(series: Series, strategy: Series | None = None) -> Signals:
    """The signals of a phase.

    Args:
        series: the phase's own rows.
        strategy: the trajectory that ends with it; gives the score that the phase started from.
    """
    own = series.points(VALIDATION_SCORE)
    start = _inherited(series, strategy)
    validation = trend_of(VALIDATION_SCORE, spaced(((start,) if start else ()) + own)) if own else None
    reward = trend_of("reward_mean", series.points("reward_mean"))
    improving = validation is not None and validation.rising and not validation.stalled
    silent = _late(series, "zero_std_fraction")
    # Where next to no prompt teaches anything, KL is that of the few that do, and jumps from step to step.
    starved = silent is not None and silent >= SILENT_PROMPTS
    falling = validation is not None and validation.fallen
    gradient = [value for _, value in thirds_of(series.points("grad_norm"))[2]]
    return Signals(
        rows=len(series.rows),
        validation=validation,
        validations=len(own),
        reward=reward,
        regression=_regression(start, own, strategy),
        collapse=_collapse(series, validation, reward),
        overfit=_overfit(validation, reward),
        kl_spike=None if starved and not falling else _kl_spike(series, improving=improving),
        entropy_collapse=None if improving else _fade(series, "entropy", ENTROPY_COLLAPSE),
        truncation=_truncation(series, improving=improving),
        length_inflation=_inflation(series),
        gradient_norm=median(gradient) if gradient else None,
        vanishing_gradient=None if improving else _vanishing_gradient(series),
        silent_prompts=silent if starved and not improving else None,
        reward_level=_late(series, "reward_mean"),
    )


def _late(series: Series, name: str) -> float | None:
    points = series.points(name)
    return mean(thirds_of(points)[2]) if points else None


def _inherited(series: Series, strategy: Series | None) -> Point | None:
    if strategy is None or not series.rows:
        return None
    earlier = [point for point in strategy.points(VALIDATION_SCORE) if point[0] < series.rows[0].step]
    return earlier[-1] if earlier else None


def _regression(start: Point | None, own: tuple[Point, ...], strategy: Series | None) -> Shift | None:
    if start is None or len(own) < 2:  # noqa: PLR2004 - the first validation after a transition often dips
        return None
    best = max(own, key=lambda point: (point[1], -point[0]))
    # A phase often starts from a lucky validation: twice the scatter seen before it or in it is no regression yet.
    before = strategy.up_to(start[0]).points(VALIDATION_SCORE) if strategy else ()
    noise = max(scatter([value for _, value in points]) for points in (own, before))
    if start[1] - best[1] <= max(2 * noise, FLAT_SHARE * abs(start[1])):
        return None
    return Shift(VALIDATION_SCORE, *start, *best, onset=own[0][0])


def _collapse(series: Series, validation: Trend | None, reward: Trend | None) -> Shift | None:
    for trend in (validation, reward):
        shift = fallen_to_nothing(trend.points) if trend else None
        if trend and shift:
            return replace(shift, metric=trend.metric)
    broken = next((row for row in series.rows if not all(map(math.isfinite, row.values.values()))), None)
    if broken is not None:
        name = next(name for name, value in broken.values.items() if not math.isfinite(value))
        earlier = [point for point in series.points(name) if point[0] < broken.step] or [(broken.step, 0.0)]
        return Shift(name, *earlier[-1], broken.step, broken.values[name], onset=broken.step)
    falling = any(
        trend is not None and trend.fallen and trend.thirds[2] < trend.thirds[1] for trend in (validation, reward)
    )
    explosion = _spike(series, "grad_norm", EXPLOSION)
    # Where nothing was learned any gradient is many times the level: the first is hope, not damage.
    return explosion if falling and explosion and explosion.before >= GRADIENT_VANISHED else None


def _overfit(validation: Trend | None, reward: Trend | None) -> Shift | None:
    if validation is None or reward is None or not validation.fallen or not reward.rising:
        return None
    return Shift(validation.metric, *validation.best, *validation.last, onset=validation.best[0] + 1)


def _spike(series: Series, name: str, factor: float, *, recent: bool = False) -> Shift | None:
    """A late peak over the median of what came before; with `recent`, of the middle third alone."""
    points = series.points(name)
    first, middle, last = thirds_of(points)
    earlier = middle if recent else first + middle
    if len(points) < 3 or not last or not earlier:  # noqa: PLR2004 - less has no earlier level
        return None
    level = median(value for _, value in earlier)
    peak = max(last, key=lambda point: point[1])
    if level <= 0 or peak[1] < factor * level:
        return None
    onset = next(step for step, value in points if value >= factor * level)
    return Shift(name, earlier[len(earlier) // 2][0], level, *peak, onset=onset)


def _kl_spike(series: Series, *, improving: bool) -> Shift | None:
    # A policy that learns leaves the base model, and KL leaves zero by any factor: only a jump from where it had got to
    # is a spike while validation rises.
    spike = _spike(series, "kl", KL_LARGE_SPIKE if improving else KL_SPIKE, recent=improving)
    return spike if spike is not None and spike.after >= KL_NOTICEABLE else None


def _fade(series: Series, name: str, share: float) -> Shift | None:
    points = series.points(name)
    if len(points) < 3:  # noqa: PLR2004 - less has no earlier level
        return None
    first, _, last = thirds_of(points)
    before, after = median(value for _, value in first), median(value for _, value in last)
    if before <= 0 or after > share * before:
        return None
    onset = next((step for step, value in points if value <= share * before), last[0][0])
    return Shift(name, first[len(first) // 2][0], before, last[-1][0], after, onset=onset)


def _truncation(series: Series, *, improving: bool) -> float | None:
    points = series.points("response_clip_ratio")
    if not points:
        return None
    first, _, last = thirds_of(points)
    early, late = mean(first), mean(last)
    return None if late < TRUNCATED or (improving and late <= HEALING * early) else late


def _inflation(series: Series) -> Shift | None:
    points = series.points("response_length_mean")
    if len(points) < 3:  # noqa: PLR2004 - less has no earlier level
        return None
    first, _, last = thirds_of(points)
    before, after = mean(first), mean(last)
    if after < LENGTH_INFLATION * before:
        return None
    return Shift("response_length_mean", first[0][0], before, last[-1][0], after, onset=last[0][0])


def _vanishing_gradient(series: Series) -> Shift | None:
    # A clip fraction that is zero throughout comes from a single mini-batch a step and says nothing.
    for name in ("grad_norm", "clip_fraction"):
        shift = _fade(series, name, FADED)
        if shift is not None:
            return shift
    points = series.points("grad_norm")
    if not points:
        return None
    first, _, last = thirds_of(points)
    level = median(value for _, value in last)
    if level >= GRADIENT_VANISHED:
        return None
    return Shift("grad_norm", first[0][0], first[0][1], last[-1][0], level, onset=last[0][0])
