"""What a phase's metrics show: named, quantified signals. Pure; the same series gives the same signals.

The paper tunes no numeric threshold by hand (appendix G) because a language model reads the curves; rules cannot do
without. The constants here are therefore ratios of a metric to its own earlier level wherever the metric allows it, and
each says why it has its value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median, stdev

from llmzero_hpc.search.metrics import VALIDATION_SCORE, Series

Point = tuple[int, float]

FLAT_SHARE = 0.02
"""A gain within 2 % of the level is none: the smallest gain between phases that the paper reports is 3 % (table 9)."""
DROP_SHARE = 0.05
"""A fall of 5 % of the best level is one: the paper's regression from .700 to .672 is 4 % (section 4.3.1)."""
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
COLLAPSED = 0.8
"""Share of its peak that a reward or validation score has lost."""
EXPLOSION = 20.0
"""Late peak of the gradient norm over its earlier median: far outside the few-fold scatter of a healthy run."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A metric that moved from one level to another; `onset` is the first step on the wrong side."""

    metric: str
    before_step: int
    before: float
    after_step: int
    after: float
    onset: int

    @property
    def ratio(self) -> float:
        """New level over old; infinite from zero."""
        return self.after / self.before if self.before else math.inf

    @property
    def words(self) -> str:
        """The movement with its numbers."""
        verb = "rose" if self.after > self.before else "fell"
        return (
            f"{self.metric} {verb} from {self.before:.3g} at step {self.before_step} to {self.after:.3g} "
            f"at step {self.after_step}"
        )


@dataclass(frozen=True, slots=True)
class Trend:
    """A metric's course over a phase; at least one point."""

    metric: str
    points: tuple[Point, ...]

    @property
    def noise(self) -> float:
        """Scatter of a single point about a smooth course, from second differences; 0 for fewer than three points."""
        return scatter([value for _, value in self.points])

    @property
    def thirds(self) -> tuple[float, float, float]:
        """Mean of the first, middle and last third."""
        first, middle, last = _thirds(self.points)
        return _mean(first), _mean(middle or self.points), _mean(last)

    @property
    def slopes(self) -> tuple[float, float, float]:
        """Least-squares slope a step within each third, joined to the point before it; 0 for a single point."""
        width = max(1, len(self.points) // 3)
        first, second = self.points[: width + 1], self.points[width - 1 : len(self.points) - width]
        return slope(first), slope(second), slope(self.points[-width - 1 :])

    @property
    def first(self) -> Point:
        """The oldest point."""
        return self.points[0]

    @property
    def last(self) -> Point:
        """The newest point."""
        return self.points[-1]

    @property
    def best(self) -> Point:
        """The highest point; ties go to the earlier step."""
        return max(self.points, key=lambda point: (point[1], -point[0]))

    @property
    def last_gain(self) -> float:
        """The newest value minus the one before."""
        return self.points[-1][1] - self.points[-2][1] if len(self.points) > 1 else 0.0

    @property
    def tolerance(self) -> float:
        """A difference below this is none: the noise, or a small share of the level."""
        return max(self.noise, FLAT_SHARE * max(abs(value) for _, value in self.points))

    @property
    def rising(self) -> bool:
        """The last third lies above the first by more than the tolerance."""
        return len(self.points) > 1 and self.thirds[2] - self.thirds[0] > self.tolerance

    @property
    def stalled(self) -> bool:
        """The later half brought no best value that exceeds the earlier half's by more than the tolerance."""
        half = (len(self.points) + 1) // 2
        if len(self.points) < 2:  # noqa: PLR2004 - one point has no halves
            return False
        return max(v for _, v in self.points[half:]) - max(v for _, v in self.points[:half]) <= self.tolerance

    @property
    def fallen(self) -> bool:
        """It ends clearly below its best."""
        return self.best[1] - self.last[1] > max(2 * self.noise, DROP_SHARE * abs(self.best[1]))

    @property
    def words(self) -> str:
        """The course with its numbers."""
        best = self.best
        text = f"{self.metric} went from {self.first[1]:.3g} at step {self.first[0]} to {self.last[1]:.3g} "
        text += f"at step {self.last[0]}"
        return text if best == self.last else f"{text}, best {best[1]:.3g} at step {best[0]}"


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
        """It improves, but at less than half of the pace of its beginning."""
        if self.validation is None or not self.improving:
            return False
        points = self.validation.points
        half = len(points) // 2
        early, late = points[: half + 1], points[half:]
        return _secant(late) < _secant(early) / 2


def read(series: Series, strategy: Series | None = None) -> Signals:
    """The signals of a phase.

    Args:
        series: the phase's own rows.
        strategy: the trajectory that ends with it; gives the score that the phase started from.
    """
    own = series.points(VALIDATION_SCORE)
    start = _inherited(series, strategy)
    validation = _trend(VALIDATION_SCORE, _spaced(((start,) if start else ()) + own)) if own else None
    reward = _trend("reward_mean", series.points("reward_mean"))
    improving = validation is not None and validation.rising and not validation.stalled
    silent = _late(series, "zero_std_fraction")
    gradient = [value for _, value in _thirds(series.points("grad_norm"))[2]]
    return Signals(
        rows=len(series.rows),
        validation=validation,
        validations=len(own),
        reward=reward,
        regression=_regression(start, own, strategy),
        collapse=_collapse(series, validation, reward),
        overfit=_overfit(validation, reward),
        kl_spike=_kl_spike(series, improving=improving),
        entropy_collapse=None if improving else _fade(series, "entropy", ENTROPY_COLLAPSE),
        truncation=_truncation(series, improving=improving),
        length_inflation=_inflation(series),
        gradient_norm=median(gradient) if gradient else None,
        vanishing_gradient=None if improving else _vanishing_gradient(series),
        silent_prompts=silent if silent is not None and silent >= SILENT_PROMPTS and not improving else None,
        reward_level=_late(series, "reward_mean"),
    )


def scatter(values: list[float]) -> float:
    """Standard deviation of single values about a smooth course: second differences remove any straight trend."""
    second = [a - 2 * b + c for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return math.sqrt(fmean(d * d for d in second) / 6) if second else 0.0  # 6 = 1 + 4 + 1, the weights squared


def slope(points: tuple[Point, ...]) -> float:
    """Least-squares slope a step; 0 for fewer than two points."""
    if len(points) < 2:  # noqa: PLR2004 - one point has no slope
        return 0.0
    middle_step, middle_value = fmean(step for step, _ in points), fmean(value for _, value in points)
    spread = math.fsum((step - middle_step) ** 2 for step, _ in points)
    return math.fsum((step - middle_step) * (value - middle_value) for step, value in points) / spread


def fallen_to_nothing(points: tuple[Point, ...]) -> Shift | None:
    """Whether a score ended without nearly all of its peak, beyond its noise; its tail is a fifth, at least two."""
    width = max(2, len(points) // 5)
    if len(points) < 2 * width:
        return None
    values = [value for _, value in points]
    means = [fmean(values[i : i + width]) for i in range(len(values) - width + 1)]
    peak = max(range(len(means)), key=lambda i: (means[i], -i))
    drop = means[peak] - means[-1]
    # The fall itself is no noise: what counts is the scatter before it.
    calm = values[: peak + width]
    noise = scatter(calm) if len(calm) > 2 else stdev(calm)  # noqa: PLR2004 - two points have no second difference
    if means[peak] <= 0 or drop < COLLAPSED * means[peak] or drop <= 3 * noise:
        return None
    onset = next(step for step, value in points[peak:] if value <= means[peak] / 2)
    return Shift("", points[peak][0], means[peak], points[-1][0], means[-1], onset)


def _mean(points: tuple[Point, ...]) -> float:
    return fmean(value for _, value in points)


def _secant(points: tuple[Point, ...]) -> float:
    return (points[-1][1] - points[0][1]) / max(1, points[-1][0] - points[0][0])


def _thirds(points: tuple[Point, ...]) -> tuple[tuple[Point, ...], tuple[Point, ...], tuple[Point, ...]]:
    width = max(1, len(points) // 3)
    return points[:width], points[width:-width], points[-width:]


def _trend(metric: str, points: tuple[Point, ...]) -> Trend | None:
    return Trend(metric, points) if points else None


def _spaced(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Without the last point but one where the last follows at once: closing a phase is no interval of its own."""
    gaps = [later[0] - point[0] for point, later in pairwise(points)]
    return (*points[:-2], points[-1]) if len(gaps) > 1 and gaps[-1] < median(gaps) / 2 else points


def _late(series: Series, name: str) -> float | None:
    points = series.points(name)
    return _mean(_thirds(points)[2]) if points else None


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
    return explosion if falling else None


def _overfit(validation: Trend | None, reward: Trend | None) -> Shift | None:
    if validation is None or reward is None or not validation.fallen or not reward.rising:
        return None
    return Shift(validation.metric, *validation.best, *validation.last, onset=validation.best[0] + 1)


def _spike(series: Series, name: str, factor: float) -> Shift | None:
    points = series.points(name)
    first, middle, last = _thirds(points)
    earlier = first + middle
    if len(points) < 3 or not last:  # noqa: PLR2004 - less has no earlier level
        return None
    level = median(value for _, value in earlier)
    peak = max(last, key=lambda point: point[1])
    if level <= 0 or peak[1] < factor * level:
        return None
    onset = next(step for step, value in points if value >= factor * level)
    return Shift(name, earlier[len(earlier) // 2][0], level, *peak, onset=onset)


def _kl_spike(series: Series, *, improving: bool) -> Shift | None:
    spike = _spike(series, "kl", KL_LARGE_SPIKE if improving else KL_SPIKE)
    return spike if spike is not None and spike.after >= KL_NOTICEABLE else None


def _fade(series: Series, name: str, share: float) -> Shift | None:
    points = series.points(name)
    if len(points) < 3:  # noqa: PLR2004 - less has no earlier level
        return None
    first, _, last = _thirds(points)
    before, after = median(value for _, value in first), median(value for _, value in last)
    if before <= 0 or after > share * before:
        return None
    onset = next((step for step, value in points if value <= share * before), last[0][0])
    return Shift(name, first[len(first) // 2][0], before, last[-1][0], after, onset=onset)


def _truncation(series: Series, *, improving: bool) -> float | None:
    points = series.points("response_clip_ratio")
    if not points:
        return None
    first, _, last = _thirds(points)
    early, late = _mean(first), _mean(last)
    return None if late < TRUNCATED or (improving and late <= HEALING * early) else late


def _inflation(series: Series) -> Shift | None:
    points = series.points("response_length_mean")
    if len(points) < 3:  # noqa: PLR2004 - less has no earlier level
        return None
    first, _, last = _thirds(points)
    before, after = _mean(first), _mean(last)
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
    first, _, last = _thirds(points)
    level = median(value for _, value in last)
    if level >= GRADIENT_VANISHED:
        return None
    return Shift("grad_norm", first[0][0], first[0][1], last[-1][0], level, onset=last[0][0])
