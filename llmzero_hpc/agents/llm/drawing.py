"""Draws pictures for models that see: large type, one metric a panel, few ticks, phases marked; same data, same bytes.

`python -m llmzero_hpc.agents.llm.drawing` takes an order and gives pictures (base64 in a JSON list): a process of its
own, so that matplotlib never grows the controller.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llmzero_hpc.agents.llm.plots import ORDER, Curve, Order, Picture, Points
from llmzero_hpc.agents.llm.summaries import shown
from llmzero_hpc.report import words
from llmzero_hpc.report.plots import BLUE, GREEN, GREY
from llmzero_hpc.search.metrics import VALIDATION_SCORE

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 1120, 840
"""Size of a proposer's picture in pixels: within what models take without shrinking it."""
OVERLAY_SHARE = 0.75
"""Of width and height, for an early stopper's: it is asked often, and what it must see is large."""
_SMOOTH_FROM = 60
"""Points from which a running mean is drawn over the raw course."""
_FLATTEST = 0.1
"""Least height of a panel as a share of its largest value, so that noise about a level does not fill it."""
_ROOM = 0.1
"""Share of the axis that stays free on the right for the newest value, where one panel fills the width."""
_RUN, _PARENT, _BEFORE, _EARLIER, _BEST = (
    "this run",
    "parent phase",
    "before this run",
    "earlier phases",
    "best strategy",
)
_RAW, _TARGET, _END = "raw (bold: mean)", "best so far", "planned end"
_LEGEND = (_RUN, _PARENT, _BEFORE, _EARLIER, _BEST, _RAW, _TARGET, _END)
_DPI = 100
_SETTINGS = {
    "font.family": ["DejaVu Sans"],
    "font.size": 15,
    "text.parse_math": False,  # a subtask may hold a dollar sign
    "axes.titlesize": 16,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 46,  # what it means and the names of phases stand between title and panel
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E2E5E9",
    "axes.edgecolor": "#6B7280",
    "lines.linewidth": 3,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.16,
    "figure.constrained_layout.h_pad": 0.16,
}


def _drawn(order: Order, picture: Picture) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI))
        FigureCanvasAgg(figure)
        figure.suptitle(picture.title, x=0.02, ha="left", fontsize=19, fontweight="bold")
        grid = figure.subplots(*_shape(len(picture.curves)), squeeze=False).flatten()
        for axes in grid[len(picture.curves) :]:
            axes.set_visible(False)
        rows, columns = _shape(len(picture.curves))
        for place, (axes, curve) in enumerate(zip(grid, picture.curves, strict=False)):
            _panel(axes, order, curve, room=_ROOM * columns)
            if place >= (rows - 1) * columns:
                axes.set_xlabel("step of the strategy")
        handles = {
            label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        named = [label for label in _LEGEND if label in handles]
        figure.legend(
            [handles[label] for label in named],
            named,
            loc="outside lower left",
            ncols=6,
            frameon=False,
            fontsize=14,
            columnspacing=1.4,
            handlelength=1.6,
        )
        image = io.BytesIO()
        dpi = _DPI if order.target is None else OVERLAY_SHARE * _DPI
        figure.savefig(image, format="png", dpi=dpi, metadata={"Software": None})  # no version: the same bytes
        return image.getvalue()


def _shape(panels: int) -> tuple[int, int]:
    """Rows and columns: time runs to the right, so a panel is rather wide than tall."""
    if panels <= 2:  # noqa: PLR2004 - one or two fill the width
        return panels, 1
    return (panels + 1) // 2, 2


def _panel(axes: Any, order: Order, curve: Curve, *, room: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    is_overlay = order.target is not None
    is_score = curve.metric.startswith(VALIDATION_SCORE)
    if is_overlay:
        _line(axes, curve.best, GREEN, _BEST, dotted=is_score, marker="s", width=6)
    earlier = [point for point in curve.run if point[0] < order.focus]
    own = [point for point in curve.run if point[0] >= order.focus]
    _line(axes, earlier, GREY, _BEFORE if is_overlay else _EARLIER, dotted=is_score, width=2.5)
    _line(axes, own, BLUE, _RUN if is_overlay else _PARENT, dotted=is_score)
    _marks(axes, order, curve)
    axes.set_title(words.clipped(words.plain(curve.metric), 30))
    _above(axes, 0.0, words.METRIC_TITLES.get(curve.metric, ""), 24)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.number(float(value))))
    _heights(axes, order, curve)
    length = max(1, order.last_step - order.first_step)
    axes.set_xlim(order.first_step - 0.02 * length, order.last_step + room * length)
    if own:
        _note(axes, own[-1], shown(own[-1][1]), BLUE, (9, 0))
        best = max(own, key=lambda point: (point[1], -point[0]))
        if is_score and best != own[-1]:
            _note(axes, best, shown(best[1]), BLUE, (-20, 18))


def _line(
    axes: Any, points: Points, colour: str, label: str, *, dotted: bool, marker: str = "o", width: float = 3.0
) -> None:
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if dotted or len(points) == 1:
        axes.plot(steps, values, color=colour, marker=marker, markersize=5 + width, linewidth=width, label=label)
    elif len(points) < _SMOOTH_FROM:
        axes.plot(steps, values, color=colour, linewidth=width, label=label)
    else:
        axes.plot(steps, values, color=colour, linewidth=1.2, alpha=0.4)
        axes.plot(steps, _running_mean(values), color=colour, linewidth=width, label=label)
        axes.plot([], [], color=GREY, linewidth=1.2, alpha=0.6, label=_RAW)


def _running_mean(values: Sequence[float]) -> list[float]:
    half = max(2, len(values) // 60)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _marks(axes: Any, order: Order, curve: Curve) -> None:
    """Where phases begin, where the run ends, what is to be beaten."""
    starts = [*order.phase_starts, (order.last_step + 1, "")]
    for (step, label), (following, _) in pairwise(starts):
        if step > order.first_step or order.target is not None:
            axes.axvline(step - 0.5, color=GREY, linewidth=1.5, linestyle=(0, (4, 4)), zorder=0)
        if following - step >= 0.08 * (order.last_step - order.first_step):  # else labels would overlap
            _above(axes, step - 0.5, label, 4, "data")
    if order.ends_at is not None:
        axes.axvline(order.ends_at, color=BLUE, linewidth=1.5, linestyle=(0, (1, 2)), label=_END)
    if order.target is not None and curve.metric == VALIDATION_SCORE:
        axes.axhline(order.target, color=GREEN, linewidth=2, linestyle=(0, (6, 3)), label=_TARGET)
        _note(axes, (order.first_step, order.target), shown(order.target), GREEN, (0, 14))


def _above(axes: Any, place: float, text: str, height: float, unit: str = "axes fraction") -> None:
    """Small text over a panel, `height` points above its top."""
    axes.annotate(
        text, (place, 1), xycoords=(unit, "axes fraction"), xytext=(0, height), textcoords="offset points",
        va="bottom", fontsize=13, color=GREY, annotation_clip=False,
    )  # fmt: skip


def _note(axes: Any, point: tuple[int, float], text: str, colour: str, offset: tuple[int, int]) -> None:
    axes.annotate(
        text, point, xytext=offset, textcoords="offset points", va="center", fontsize=15, fontweight="bold",
        color=colour, annotation_clip=False, zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )  # fmt: skip


def _heights(axes: Any, order: Order, curve: Curve) -> None:
    values = [value for points in (curve.run, curve.best) for _, value in points]
    if order.target is not None and curve.metric == VALIDATION_SCORE:
        values.append(order.target)
    if not values:
        return
    low, high = min(values), max(values)
    height = max(1.16 * (high - low), _FLATTEST * max(abs(low), abs(high)), 1e-6)
    middle = (low + high) / 2
    axes.set_ylim(middle - height / 2, middle + height / 2)


def main() -> None:
    """Draw the order that comes in; the pictures go out as a JSON list of base64 texts."""
    order = ORDER.validate_json(sys.stdin.buffer.read())
    images = [base64.b64encode(_drawn(order, picture)).decode("ascii") for picture in order.pictures]
    sys.stdout.write(json.dumps(images))


if __name__ == "__main__":
    main()
