"""Small line charts for the report page: SVG written by hand, in the page's fonts and colours, with few ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from llmzero_hpc.report import words
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS

if TYPE_CHECKING:
    from llmzero_hpc.report.data import Trajectory

_WIDTH, _HEIGHT = 340, 204
_TOP, _RIGHT, _BOTTOM = 10, 14, 44
_STRIP = 16  # above the curves, for the names of the phases
_CHARACTER = 8.4  # of the 13 px font, taken generously
_MINUS = "−"  # noqa: RUF001 - a true minus is as wide as the digits

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. `style` is a CSS class of the page: blue, green, orange."""

    points: Sequence[Point]
    style: str = "blue"
    stepped: bool = False
    """Keeps its value until the next point."""
    joined: bool = True
    """False draws the points alone."""
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Boundary:
    """A vertical mark at x with a word beside it."""

    x: float
    label: str


def ticks(low: float, high: float) -> list[float]:
    """Round values inside the limits, three to seven of them; one where the limits meet."""
    if not high > low:
        return [low]
    found: list[float] = []
    for wanted in (4, 6, 9):
        raw = (high - low) / wanted
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        found = [round(index * step, 12) for index in range(first, last + 1)]
        if len(found) >= 3:  # noqa: PLR2004 - with fewer nobody can read a value between them
            break
    return found


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Limits that hold all values with some air; a constant stands in the middle."""
    low, high = min(values), max(values)
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):
        air = abs(low) * 0.1 or 1.0
        return low - air, high + air
    air = (high - low) * 0.08
    bottom = low - air
    return (0.0 if low >= 0 > bottom else bottom), high + air


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    x_limits: Point | None = None,
    boundaries: Sequence[Boundary] = (),
    whole: bool = False,
    width: int = _WIDTH,
) -> str:
    """A chart of curves over a common x axis; an empty string when there is no point.

    Args:
        title: for screen readers.
        lines: curves, later ones on top.
        x_label: what x is, with its unit.
        x_limits: both ends of the x axis; None takes those of the points.
        boundaries: vertical marks.
        whole: x counts things, so that no tick is a fraction.
        width: in pixels of the drawing, which scales with its place in the page.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    x_low, x_high = x_limits or (min(x for x, _ in points), max(x for x, _ in points))
    if x_low == x_high:
        x_low, x_high = x_low - 1, x_high + 1
    y_low, y_high = padded([y for _, y in points])
    y_ticks = [tick for tick in ticks(y_low, y_high) if y_low <= tick <= y_high]
    labels = [_tick(tick) for tick in y_ticks]
    left = 12 + _CHARACTER * max(len(label) + label.count(_MINUS) / 3 for label in [*labels, "0"])
    top = _TOP + (_STRIP if boundaries else 0)
    inner_width, inner_height = width - left - _RIGHT, _HEIGHT - top - _BOTTOM

    def x_at(value: float) -> float:
        return round(left + (value - x_low) / (x_high - x_low) * inner_width, 1)

    def y_at(value: float) -> float:
        return round(top + (y_high - value) / (y_high - y_low) * inner_height, 1)

    name = escape(title)
    parts = [f'<svg class="chart" viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{name}"><title>{name}</title>']
    for tick, label in zip(y_ticks, labels, strict=True):
        y = y_at(tick)
        parts.append(f'<path class="grid" d="M{left:g} {y:g}H{width - _RIGHT}"/>')
        parts.append(_text("tick", left - 7, y + 4, label, "end"))
    for tick in ticks(x_low, x_high):
        if not whole or tick == round(tick):
            x = x_at(tick)
            label = _tick(tick)
            is_tight = x + len(label) * _CHARACTER / 2 > width
            parts.append(_text("tick", x, _HEIGHT - _BOTTOM + 18, label, "end" if is_tight else "middle"))
    parts.append(_text("axis", left + inner_width / 2, _HEIGHT - 6, x_label))
    parts += _marks([(x_at(mark.x), mark.label) for mark in boundaries], top, width)
    for line in lines:
        parts += _curve(line, [(x_at(x), y_at(y)) for x, y in line.points])
    return "".join([*parts, "</svg>"])


def _tick(value: float) -> str:
    return words.number(value).replace("-", _MINUS) if value < 0 else words.number(value)


def _text(style: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _curve(line: Line, where: Sequence[Point]) -> list[str]:
    parts = []
    if line.joined and len(where) > 1:
        parts.append(f'<path class="line {line.style}" d="{_path(where, stepped=line.stepped)}"/>')
    if line.dots or not line.joined or len(where) == 1:
        parts += [f'<circle class="dot {line.style}" cx="{x:g}" cy="{y:g}" r="3.5"/>' for x, y in where]
    return parts


def _marks(marks: Sequence[tuple[float, str]], top: float, width: float) -> list[str]:
    """Vertical marks, each with its name above where there is room before the next one."""
    parts = []
    for index, (x, label) in enumerate(marks):
        parts.append(f'<path class="boundary" d="M{x:g} {top - _STRIP + 3:g}V{_HEIGHT - _BOTTOM}"/>')
        room = (marks[index + 1][0] if index + 1 < len(marks) else width) - x
        shown = next((text for text in (label, label.rsplit(" ", 1)[-1]) if len(text) * _CHARACTER + 6 <= room), "")
        if shown:
            parts.append(_text("tick", x + 4, top - 4, shown, "start"))
    return parts


def _path(points: Sequence[Point], *, stepped: bool) -> str:
    first, *rest = points
    if stepped:
        return f"M{first[0]:g} {first[1]:g}" + "".join(f"H{x:g}V{y:g}" for x, y in rest)
    return f"M{first[0]:g} {first[1]:g}" + "".join(f"L{x:g} {y:g}" for x, y in rest)


def trajectory_width(trajectory: Trajectory) -> float:
    """The least width, in pixels, at which the values on a trajectory's chart do not touch."""
    longest = max((len(words.number(value)) for value in trajectory.values), default=0)
    return 24 + max(64.0, 9.6 * longest + 6) * len(trajectory.values)


def trajectory_chart(trajectory: Trajectory, phases: Sequence[int]) -> str:
    """A hyperparameter along the strategy: a level for each phase with its value written on it."""
    numbers = [value for value in trajectory.values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) != len(trajectory.values) or not numbers:
        return ""
    row = HYPERPARAMETERS.get(trajectory.name)
    logarithmic = row is not None and row.logarithmic and min(numbers) > 0
    levels = [math.log10(value) for value in numbers] if logarithmic else [float(value) for value in numbers]
    low, high = padded(levels)
    written = [words.number(value) for value in trajectory.values]
    narrowest = trajectory_width(trajectory)
    slot = max((narrowest - 24) / len(levels), (_WIDTH - 24) / max(3, len(levels)))
    width, height, top, bottom = 24 + slot * len(levels), 128, 30, 34
    tops = [round(top + (high - level) / (high - low) * (height - top - bottom), 1) for level in levels]
    edges = [12 + slot * index for index in range(len(levels) + 1)]
    path = f"M{edges[0]:g} {tops[0]:g}H{edges[1]:g}" + "".join(
        f"V{y:g}H{edges[index + 1]:g}" for index, y in enumerate(tops) if index
    )
    title = escape(f"{trajectory.name}: " + ", ".join(written))
    parts = [
        f'<svg class="chart" viewBox="0 0 {width:g} {height}" style="min-width:{narrowest:g}px;max-width:{width:g}px"',
        f' role="img" aria-label="{title}"><title>{title}</title><path class="line blue" d="{path}"/>',
    ]
    for index, (text, y) in enumerate(zip(written, tops, strict=True)):
        middle = (edges[index] + edges[index + 1]) / 2
        parts.append(_text("value", middle, y - 8, text))
        parts.append(_text("tick", middle, height - 8, f"phase {phases[index]}"))
    return "".join([*parts, "</svg>"])
