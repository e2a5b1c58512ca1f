"""Pictures for people and for agents that see: PNG or SVG by the suffix of the path, the same bytes for the same data.

Blue is a run, green the best strategy; both tell apart for the colour-blind, and differ in their markers too.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from llmzero_hpc.errors import MissingDependencyError
from llmzero_hpc.report import words
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.search.metrics import STEP_METRICS, VALIDATION_SCORE
from llmzero_hpc.store.atomic import make_folder, write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmzero_hpc.report.data import ReportData
    from llmzero_hpc.search.metrics import Series

BLUE, GREEN, GREY = "#0072B2", "#009E73", "#6B7280"
_LEFT_OUT = frozenset({"epoch", "learning_rate", "step_seconds", "tokens_per_second"})
_OVERLAID = ("val_score", "reward_mean", "response_length_mean", "entropy", "kl", "grad_norm")
_COLUMNS = 3
_SETTINGS = {
    "svg.hashsalt": "llmzero-hpc",
    "font.family": ["DejaVu Sans"],
    "font.size": 13,
    "text.parse_math": False,  # a subtask or a key of the user's may hold a dollar sign
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E2E5E9",
    "axes.edgecolor": "#9AA3AD",
    "xtick.color": "#3A424C",
    "ytick.color": "#3A424C",
    "axes.labelcolor": "#3A424C",
    "lines.linewidth": 2,
    "axes.ymargin": 0.14,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.14,
    "figure.constrained_layout.h_pad": 0.14,
}


def curves(
    series: Series, path: Path, *, title: str, boundaries: Sequence[tuple[int, str]] = (), simulated: bool = False
) -> None:
    """Every metric of a phase or strategy, one a panel.

    Args:
        series: what to draw; nothing is written when it is empty.
        path: the picture.
        title: of the whole.
        boundaries: (step, name) of each phase of a strategy, marked by vertical lines.
        simulated: write so above the panels.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: the file system refused.
    """
    names = [name for name in _ordered(series) if name not in _LEFT_OUT]
    if not names:
        return

    def draw(figure: Any) -> None:
        for axes, name in _panels(figure, names):
            _line(axes, series.points(name), BLUE, is_score=name.startswith(VALIDATION_SCORE))
            axes.set_title(metric_title(name))
            for step, label in boundaries:
                axes.axvline(step, color=GREY, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
                if len(boundaries) <= _COLUMNS * 2:
                    axes.annotate(
                        label.rsplit(" ", 1)[-1], (step, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
                        textcoords="offset points", va="top", fontsize=11, color=GREY,
                    )  # fmt: skip
            axes.set_xlabel("step of the strategy")

    save_picture(path, draw, _size(len(names)), _titled(title, simulated=simulated))


def overlay(run: Series, best: Series, path: Path, *, title: str, simulated: bool = False) -> None:
    """A run (blue) against the best strategy (green), aligned on the steps of the strategy.

    `run` is the whole trajectory that the run extends. Nothing is written when it is empty. Raises as `curves`.
    """
    names = [name for name in _OVERLAID if run.points(name)]
    if not names:
        return

    def draw(figure: Any) -> None:
        for index, (axes, name) in enumerate(_panels(figure, names)):
            is_score = name == VALIDATION_SCORE
            _line(axes, best.points(name), GREEN, is_score=is_score, marker="s", label="best strategy", width=3.4)
            _line(axes, run.points(name), BLUE, is_score=is_score, label="this run")
            axes.set_title(metric_title(name))
            axes.set_xlabel("step of the strategy")
            if not index:
                figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)

    save_picture(path, draw, _size(len(names)), _titled(title, simulated=simulated))


def best_so_far(data: ReportData, path: Path) -> None:
    """The best validation score so far by iterations and by compute; each phase is a dot. Raises as `curves`."""
    if not any(point.best is not None for point in data.progress):
        return

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, label, where in (
            (left, "iteration", [float(point.iteration) for point in data.progress]),
            (right, data.device_unit, [point.device_hours for point in data.progress]),
        ):
            pairs = list(zip(where, data.progress, strict=True))
            best = [(x, point.best) for x, point in pairs if point.best is not None]
            single = [(x, point.score) for x, point in pairs if point.score is not None]
            axes.step(*zip(*best, strict=True), where="post", color=GREEN, label="best so far")
            axes.plot(*zip(*single, strict=True), "o", color=BLUE, label="one phase")
            axes.set_xlabel(label)
            _few_ticks(axes, whole=label == "iteration")
        left.set_ylabel("validation score")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)

    save_picture(path, draw, (11.0, 4.6), _titled("Best validation score so far", simulated=data.simulated))


def trajectories(data: ReportData, path: Path) -> None:
    """The hyperparameters that change along the best strategy, one a panel. Raises as `curves`."""
    found = [
        item
        for item in data.trajectories
        if not item.is_constant and all(isinstance(value, int | float) for value in item.values)
    ]
    if not found:
        return
    phases = [str(phase.node) for phase in data.strategy]

    def draw(figure: Any) -> None:
        for axes, item in _panels(figure, found):
            values = [float(value) for value in item.values if isinstance(value, int | float)]
            places = list(range(len(values)))
            row = HYPERPARAMETERS.get(item.name)
            if row is not None and row.logarithmic and min(values) > 0:
                axes.set_yscale("log")
            axes.step([*places, len(places)], [*values, values[-1]], where="post", color=BLUE)
            for place, value in zip(places, item.values, strict=True):
                axes.annotate(
                    words.number(value), (place + 0.5, float(value or 0)), xytext=(0, 5), textcoords="offset points",
                    ha="center", fontsize=13, fontweight="bold",
                )  # fmt: skip
            axes.margins(y=0.25)
            axes.set_yticks([], minor=False)
            axes.set_yticks([], minor=True)
            axes.set_xticks([place + 0.5 for place in places], phases)
            axes.spines["left"].set_visible(False)
            axes.set_xlabel("phase")
            axes.set_title(f"{item.name} ({item.parameter_class})", fontsize=13)

    save_picture(
        path, draw, _size(len(found), 2.7), _titled("Hyperparameters along the best strategy", simulated=data.simulated)
    )


def metric_title(name: str) -> str:
    """The title of a metric's panel."""
    return (
        words.METRIC_TITLES.get(name) or f"Validation: {words.clipped(words.plain(name.partition('/')[2] or name), 24)}"
    )


def _ordered(series: Series) -> list[str]:
    names = series.names()
    first = [name for name in (VALIDATION_SCORE, "reward_mean") if name in names]
    return first + [name for name in names if name not in first and (name in STEP_METRICS or "/" in name)]


def _titled(title: str, *, simulated: bool) -> str:
    return words.clipped(title, 80) + ("   (SIMULATED: nothing was trained)" if simulated else "")


def _size(panels: int, row: float = 3.1) -> tuple[float, float]:
    return 4.3 * min(_COLUMNS, panels), row * math.ceil(panels / _COLUMNS) + 0.7


def _panels(figure: Any, items: Sequence[Any]) -> list[tuple[Any, Any]]:
    columns = min(_COLUMNS, len(items))
    grid = figure.subplots(math.ceil(len(items) / columns), columns, squeeze=False).flatten()
    for axes in grid[len(items) :]:
        axes.set_visible(False)
    return list(zip(grid, items, strict=False))


def _line(
    axes: Any,
    points: Sequence[tuple[int, float]],
    colour: str,
    *,
    is_score: bool,
    marker: str = "o",
    label: str = "",
    width: float = 2.0,
) -> None:
    if points:
        sparse = is_score or len(points) == 1
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            marker=marker if sparse else "",
            markersize=3 + width,
            linewidth=width,
            label=label,
        )
    _few_ticks(axes)


def _few_ticks(axes: Any, *, whole: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(4, integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.number(float(value))))


def save_picture(path: Path, draw: Any, size: tuple[float, float], title: str) -> None:
    """Draw on a figure (`draw(figure)`) in the house's style and write it. Raises as `curves`."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib is not installed", "pip install 'llmzero-hpc[local]'") from None
    kind = path.suffix.removeprefix(".").lower() or "png"
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold")
        draw(figure)
        picture = io.BytesIO()
        # No date and no program version: the same data give the same bytes.
        figure.savefig(picture, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {"Software": None})
    make_folder(path.parent)
    write_bytes(path, picture.getvalue())
