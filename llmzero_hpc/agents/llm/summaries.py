"""Series in few words that keep their shape: ends, extremes, slopes by thirds, and where a course bends.

Values are shown with three significant digits, each with its step, so that a model can cite them (`citations`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median
from typing import TYPE_CHECKING

from llmzero_hpc.agents.playbook.trend import Point, Trend
from llmzero_hpc.report.words import clipped, plain
from llmzero_hpc.search.metrics import STEP_METRICS, VALIDATION_SCORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmzero_hpc.search.metrics import Series

MOST_PIECES = 4
"""Straight pieces of one course: three bends say what a reader keeps of a curve."""
MOST_SUBTASKS = 20
"""Subtasks that a table shows; the rest is counted."""
_LEAST_PIECE = 3
"""Points of a piece: two are a line whatever they are."""
_GRID = 80
"""Places between which a long course is cut at first: enough for three bends, and quick."""
_NOISE_FLOOR = 0.01
"""Share of the range that counts as noise at least: a bend that no eye sees is none."""
_MAD_TO_SIGMA = 1.4826 / math.sqrt(6)
"""From the median of absolute second differences (weights 1, -2, 1) to the standard deviation of one point."""
_ROUNDING = 1e-9
"""Share of a metric's largest magnitude that is no more than rounding."""
_NAME_WIDTH = 40
_HEAD = ("metric", "first", "last", "lowest", "highest", "slope a step by thirds", "straight pieces")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a course that is straight but for noise: its end points on the fitted line."""

    first: Point
    last: Point


def shown(value: float) -> str:
    """Three significant digits, as short as possible: 0.412, 1630, 5e-5."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".replace("-0", "0")
    rounded = float(f"{value:.3g}")
    if 1e-3 <= abs(rounded) < 1e6:  # noqa: PLR2004 - beyond these a power is shorter
        return f"{rounded:.0f}" if abs(rounded) >= 100 else f"{rounded:g}"  # noqa: PLR2004 - no decimals are left
    mantissa, exponent = f"{rounded:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def at(point: Point) -> str:
    """A value and its step: `0.412 @30`."""
    return f"{shown(point[1])} @{point[0]}"


def listed(points: Iterable[Point], most: int) -> str:
    """Points one after another; where there are more than `most`, evenly thinned, but with the latest and the best."""
    points = tuple(points)
    if not points:
        return "none"
    return ", ".join(at(point) for point in thinned(points, most))


def thinned(points: tuple[Point, ...], most: int) -> tuple[Point, ...]:
    """At most `most` points: the first, the highest, the newest quarter, and of the others as many, evenly spread."""
    if len(points) <= most:
        return points
    best = max(range(len(points)), key=lambda i: (points[i][1], -i))
    kept = {0, best, *range(len(points) - most // 4, len(points))}
    others = [i for i in range(len(points)) if i not in kept]
    room = most - len(kept)
    kept.update(others[(2 * i + 1) * len(others) // (2 * room)] for i in range(room))
    return tuple(points[i] for i in sorted(kept))


def pieces(points: tuple[Point, ...]) -> tuple[Piece, ...]:
    """The course in straight pieces, at most `MOST_PIECES`: between them lie its change points.

    The pieces leave the least squared error; each further one must explain more than noise would (the Bayesian
    information criterion, for one more line and its place).
    """
    if not points:
        return ()
    fit = _Lines(points)
    values = [value for _, value in points]
    second = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    noise = max(_MAD_TO_SIGMA * median(second) if second else 0.0, _NOISE_FLOOR * (max(values) - min(values)))
    return tuple(fit.piece(low, high) for low, high in pairwise(_bounds(fit, len(points), noise**2)))


def _bounds(fit: _Lines, count: int, variance: float) -> list[int]:
    """Where pieces begin, and the end: by dynamic programming over a grid of places, then each moved to its best."""
    price = 3 * math.log(count) * variance
    grid = sorted({round(i * count / _GRID) for i in range(_GRID + 1)} if count > _GRID else {*range(count + 1)})
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}
    found: list[tuple[float, list[int]]] = [(fit.error(0, count), [0, count])]
    for pieces in range(1, MOST_PIECES + 1):
        best = {
            end: min(
                (
                    (error + fit.error(start, end), [*places, end])
                    for start, (error, places) in best.items()
                    if end - start >= _LEAST_PIECE
                ),
                default=(math.inf, []),
            )
            for end in grid[1:]
        }
        best = {end: entry for end, entry in best.items() if entry[1]}
        if count in best:
            found.append((best[count][0] + (pieces - 1) * price, best[count][1]))
    bounds = min(found)[1]
    for i in range(1, len(bounds) - 1):
        bounds[i] = fit.best_split(bounds[i - 1], bounds[i + 1])
    return bounds


def table(series: Series, only: Sequence[str] | None = None) -> str:
    """Every metric that varies, one a row, as a Markdown table; those that are constant in a line below.

    Args:
        series: a phase's own rows.
        only: the metrics to show; None shows all.
    """
    rows, constant = [], []
    for name in _shown_names(series) if only is None else only:
        points = series.points(name)
        if points and len({value for _, value in points}) == 1:
            constant.append(f"{label(name)} {shown(points[0][1])}" + ("" if len(points) > 1 else f" @{points[0][0]}"))
        elif points:
            rows.append(_row(name, points))
    parts = []
    if rows:
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in (_HEAD, ["---"] * len(_HEAD), *rows)))
    if constant:
        parts.append(f"Constant: {', '.join(constant)}.")
    broken = [f"{label(name)} @{step}" for name, step in _not_finite(series)]
    if broken:
        parts.append(f"Not finite, first at: {', '.join(broken)}.")
    left_out = sum(1 for name in series.names() if name not in STEP_METRICS) - MOST_SUBTASKS
    if only is None and left_out > 0:
        parts.append(f"{left_out} more subtasks are not shown.")
    return "\n\n".join(parts) or "No metrics were reported."


def label(name: str) -> str:
    """A metric's name for a cell of a table; subtasks are named by data sets and may hold anything."""
    return clipped(plain(name).replace("|", "/").replace("`", "'"), _NAME_WIDTH)


def unreported(series: Series) -> tuple[str, ...]:
    """Canonical metrics that the trainer did not report."""
    present = set(series.names())
    return tuple(name for name in STEP_METRICS if name not in present)


def _not_finite(series: Series) -> list[tuple[str, int]]:
    """The first step at which each metric was infinite or no number."""
    found: dict[str, int] = {}
    for row in series.rows:
        for name, value in row.values.items():
            if not math.isfinite(value):
                found.setdefault(name, row.step)
    return list(found.items())


def _shown_names(series: Series) -> list[str]:
    names = [name for name in series.names() if name != "epoch"]
    subtasks = [name for name in names if name not in STEP_METRICS]
    first = [VALIDATION_SCORE] if VALIDATION_SCORE in names else []
    return first + [name for name in names if name in STEP_METRICS and name not in first] + subtasks[:MOST_SUBTASKS]


def _row(name: str, points: tuple[Point, ...]) -> list[str]:
    lowest = min(points, key=lambda point: (point[1], point[0]))
    trend = Trend(name, points)
    largest = max(abs(value) for _, value in points)

    def fitted(value: float) -> str:
        # Fits leave rounding errors where the data are zero.
        return shown(value if abs(value) > _ROUNDING * largest else 0.0)

    slopes = " ".join(f"{'+' if slope >= 0 else ''}{fitted(slope)}" for slope in trend.slopes)
    course = "; ".join(
        f"{piece.first[0]}-{piece.last[0]}: {fitted(piece.first[1])} to {fitted(piece.last[1])}"
        for piece in pieces(points)
    )
    return [label(name), at(trend.first), at(trend.last), at(lowest), at(trend.best), slopes, course]


class _Lines:
    """Least-squares lines over stretches of points, each in constant time from running sums."""

    def __init__(self, points: tuple[Point, ...]) -> None:
        self._steps = [step for step, _ in points]
        # About their means, so that the differences of sums below lose no digits.
        self._x0 = sum(self._steps) / len(points)
        self._y0 = sum(value for _, value in points) / len(points)
        xs = [step - self._x0 for step in self._steps]
        ys = [value - self._y0 for _, value in points]
        self._sums = [
            list(accumulate(terms, initial=0.0))
            for terms in (
                xs,
                ys,
                (x * x for x in xs),
                (x * y for x, y in zip(xs, ys, strict=True)),
                (y * y for y in ys),
            )
        ]

    def piece(self, low: int, high: int) -> Piece:
        slope, middle_x, middle_y, _ = self._line(low, high)
        first, last = (
            (step, self._y0 + middle_y + slope * (step - self._x0 - middle_x))
            for step in (self._steps[low], self._steps[high - 1])
        )
        return Piece(first, last)

    def error(self, low: int, high: int) -> float:
        """The squared error that one line leaves."""
        return self._line(low, high)[3]

    def best_split(self, low: int, high: int) -> int:
        """Where two lines leave the least error."""
        places = range(low + _LEAST_PIECE, high - _LEAST_PIECE + 1)
        return min(places, key=lambda place: self.error(low, place) + self.error(place, high))

    def _line(self, low: int, high: int) -> tuple[float, float, float, float]:
        """Slope, mean step, mean value, and the squared error that is left."""
        count = high - low
        x, y, xx, xy, yy = (sums[high] - sums[low] for sums in self._sums)
        spread_x, spread_xy, spread_y = xx - x * x / count, xy - x * y / count, yy - y * y / count
        slope = spread_xy / spread_x if spread_x > 0 else 0.0
        return slope, x / count, y / count, max(0.0, spread_y - slope * spread_xy)
