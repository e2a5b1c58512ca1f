"""The course of one metric over a phase: its levels, slopes, noise and falls, with the numbers in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, stdev

Point = tuple[int, float]
"""A step and the value reported there."""

FLAT_SHARE = 0.02
"""A gain within 2 % of the level is none: the smallest gain between phases that the paper reports is 3 % (table 9)."""
DROP_SHARE = 0.05
"""A fall of 5 % of the best level is one: the paper's regression from .700 to .672 is 4 % (section 4.3.1)."""
COLLAPSED = 0.8
"""Share of its peak that a reward or validation score has lost."""


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
        first, middle, last = thirds_of(self.points)
        return mean(first), mean(middle or self.points), mean(last)

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


def mean(points: tuple[Point, ...]) -> float:
    return fmean(value for _, value in points)


def secant(points: tuple[Point, ...]) -> float:
    return (points[-1][1] - points[0][1]) / max(1, points[-1][0] - points[0][0])


def thirds_of(points: tuple[Point, ...]) -> tuple[tuple[Point, ...], tuple[Point, ...], tuple[Point, ...]]:
    width = max(1, len(points) // 3)
    return points[:width], points[width:-width], points[-width:]


def trend_of(metric: str, points: tuple[Point, ...]) -> Trend | None:
    return Trend(metric, points) if points else None


def spaced(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Without the last point but one where the last follows at once: closing a phase is no interval of its own."""
    gaps = [later[0] - point[0] for point, later in pairwise(points)]
    return (*points[:-2], points[-1]) if len(gaps) > 1 and gaps[-1] < median(gaps) / 2 else points
