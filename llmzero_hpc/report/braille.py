"""Curves in characters: a plot of braille dots, eight a character."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character by row and column of its dots."""


def plot(
    points: Sequence[tuple[float, float]], width: int, height: int, x_limits: tuple[float, float] | None = None
) -> list[str]:
    """Points joined to a curve in `height` lines of `width` characters.

    Args:
        points: (x, y), ascending in x.
        width: in characters.
        height: in characters.
        x_limits: both ends of the x axis, so that a curve in progress leaves room; None takes those of the points.
    """
    grid = [[0] * width for _ in range(height)]
    if points:
        x_low, x_high = x_limits or (points[0][0], points[-1][0])
        values = [y for _, y in points]
        y_low, y_high = min(values), max(values)
        columns, rows = 2 * width - 1, 4 * height - 1
        dots = [
            (
                round((x - x_low) / ((x_high - x_low) or 1) * columns),
                rows - round((y - y_low) / (y_high - y_low) * rows) if y_high > y_low else rows // 2,
            )
            for x, y in points
        ]
        _set(grid, *dots[0])
        for (x0, y0), (x1, y1) in pairwise(dots):
            length = max(abs(x1 - x0), abs(y1 - y0), 1)
            for part in range(1, length + 1):
                _set(grid, x0 + round((x1 - x0) * part / length), y0 + round((y1 - y0) * part / length))
    return ["".join(chr(_BLANK + bits) for bits in line) for line in grid]


def _set(grid: list[list[int]], x: int, y: int) -> None:
    if 0 <= y // 4 < len(grid) and 0 <= x // 2 < len(grid[0]):
        grid[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
