"""A comparison of methods as a table, as sentences, as JSON and as a picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llmzero_hpc.analysis.bootstrap import LEAST_PAIRS
from llmzero_hpc.report import words
from llmzero_hpc.report.plots import save_picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import RenderableType

    from llmzero_hpc.analysis.bootstrap import Estimate, PairedDifference
    from llmzero_hpc.analysis.comparison import Comparison, MethodResult

COMPARISON_FORMAT = 1
_HOUR = 3600.0
_COLOURS = ("#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#6B7280", "#000000", "#F0E442")
_MARKERS = "osD^vPX*<"


def document(comparison: Comparison, *, name: str, unit: str, simulated: bool) -> dict[str, Any]:
    """Plain values in a stable shape, for scripts; costs are device-seconds, `unit` is what they are counted in."""
    return {
        "format": COMPARISON_FORMAT,
        "name": name,
        "simulated": simulated,
        "unit": unit,
        "is_over": comparison.is_over,
        **asdict(comparison),
    }


def table(comparison: Comparison, unit: str) -> RenderableType:
    """The methods as rows: best validation score, its test score, compute; means over seeds with their deviation.

    `gain` is in the test score over the first static method, `to best static` the median compute until a run had the
    best validation score of all static methods on its seed, and how many had.
    """
    from rich import box
    from rich.table import Table

    view = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False, header_style="bold")
    view.add_column("method", no_wrap=True, min_width=12)
    view.add_column("type", no_wrap=True)
    for heading in ("validation", "test", "gain", "phases", unit, "to best static"):
        view.add_column(heading, justify="right", no_wrap=True)
    first = next((row for row in comparison.methods if row.is_static), None)
    for row in comparison.methods:
        view.add_row(
            row.method,
            "static" if row.is_static else "adaptive",
            spread(row.validation),
            spread(row.test),
            gain_over(row, first),
            f"{row.phases:.1f}",
            words.number(row.cost / _HOUR),
            reached(row, first),
        )
    return view


def sentences(comparison: Comparison) -> Iterator[str]:
    """What is said of each pair, and what is not."""
    open_runs = sum(not run.is_over for run in comparison.runs)
    if open_runs:
        yield f"{open_runs} of {len(comparison.runs)} searches are not over: all figures are provisional."
    for pair in comparison.pairs:
        for split, difference in (("validation", pair.validation), ("test", pair.test)):
            if difference is not None:
                yield f"{pair.reference} - {pair.other}, {split}: {_difference(difference)}"
        if pair.speed is not None:
            yield (
                f"{pair.reference} spent {pair.speed.value:.2f}x of what {pair.other} spent until both had an equal "
                "validation score"
            )


def picture(comparison: Comparison, path: Path, *, title: str, unit: str, simulated: bool) -> None:
    """Best validation score so far against compute: means over seeds with their intervals; a dot for each run's end.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: the file system refused.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, band in enumerate(comparison.bands):
            colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
            known = [
                (cost / _HOUR, one) for cost, one in zip(band.costs, band.estimates, strict=True) if one is not None
            ]
            costs = [cost for cost, _ in known]
            axes.step(costs, [one.mean for _, one in known], where="post", color=colour, label=band.method)
            axes.fill_between(
                costs,
                [one.low for _, one in known],
                [one.high for _, one in known],
                step="post",
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            ends = [
                (run.cost / _HOUR, run.validation)
                for run in comparison.runs
                if run.method == band.method and run.validation is not None
            ]
            axes.scatter([cost for cost, _ in ends], [score for _, score in ends], s=22, color=colour, marker=marker)
        axes.set_xlabel(f"{unit} spent")
        axes.set_ylabel("best validation score so far")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)

    save_picture(path, draw, (9.0, 6.0), f"{title} (SIMULATED)" if simulated else title)


def spread(estimate: Estimate | None) -> str:
    """A mean with its deviation: 0.812 ±0.034."""
    if estimate is None:
        return "none"
    spread = f" ±{estimate.deviation:.3f}" if estimate.count > 1 else ""
    return f"{estimate.mean:.3f}{spread}"


def gain_over(row: MethodResult, first: MethodResult | None) -> str:
    """In the test score over the first static method."""
    if first is None or row is first or row.test is None or first.test is None:
        return ""
    return f"{row.test.mean - first.test.mean:+.3f}"


def reached(row: MethodResult, first: MethodResult | None) -> str:
    """The median compute until a run had the best static result of its seed, and how many had; `first` is static."""
    if first is None:
        return ""
    if row.cost_to_reach is None:
        return "never"
    return f"{words.number(row.cost_to_reach / _HOUR)} ({row.reached}/{row.runs})"


def _difference(found: PairedDifference) -> str:
    mean, count = found.difference, found.difference.count
    if count < LEAST_PAIRS:
        return f"{mean.mean:+.3f} on {count} of the seeds that both have; fewer than {LEAST_PAIRS} show nothing"
    size = "" if found.effect_size is None else f", effect size {found.effect_size:.2f}"
    verdict = "" if found.is_clear else "; no difference is shown"
    return (
        f"{mean.mean:+.3f} (95% interval {mean.low:+.3f} to {mean.high:+.3f}), better on {found.wins} of {count} "
        f"seeds{size}{verdict}"
    )
