"""A comparison as a page of Markdown: the tables of the paper's Tables 1, 2 and 5, with intervals, wins and losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.analysis.bootstrap import LEAST_PAIRS
from llmzero_hpc.report import words
from llmzero_hpc.report.comparison_views import gain_over, reached, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from llmzero_hpc.analysis.bootstrap import PairedDifference, Ratio
    from llmzero_hpc.analysis.comparison import Comparison, Pair

_HOUR = 3600.0
_MILLION = 1e6
_RESULTS_NOTE = """\
Means over seeds with their standard deviation. Test: of the checkpoint with the best validation score, measured once.
To best static: median compute until a run had the best validation score of all static methods on its seed, and how many
had.
"""
_AGAINST_NOTE = """\
- compute: what a method spent over what {reference} spent;
- speed: what {reference} spent over what the method spent, until both had the lower of their two best validation scores
  of the seed. Below 1x the method is slower, and {reference} saves compute for an equal score;
- wall-clock: how long {reference} takes over how long the method takes, if phases follow each other on the places of
  their search (`max_parallel_phases`) without queues. Above 1x the method is done earlier.

Sums over seeds; in brackets what 95 % of resamples of the seeds give.
"""


def page(
    comparison: Comparison,
    *,
    name: str,
    unit: str,
    simulated: bool,
    changes: Mapping[str, str],
    picture: str,
) -> str:
    """All tables and what they mean; `changes` says how methods differ besides their kind, for people."""
    return "\n".join(_lines(comparison, name, unit, simulated, changes, picture)) + "\n"


def _lines(
    comparison: Comparison, name: str, unit: str, simulated: bool, changes: Mapping[str, str], picture: str
) -> Iterator[str]:
    yield f"# {name}\n"
    if simulated:
        yield "SIMULATED: nothing was trained, all scores are made up.\n"
    open_runs = sum(not run.is_over for run in comparison.runs)
    if open_runs:
        yield f"{open_runs} of {len(comparison.runs)} searches are not over: all figures are provisional.\n"
    seeds = sorted({run.seed for run in comparison.runs})
    yield f"Seeds {', '.join(map(str, seeds))}. The others are compared with {comparison.reference}.\n"
    yield from _results(comparison, unit)
    yield _RESULTS_NOTE
    if picture:
        yield f"![Best validation score so far against compute]({picture})\n"
    if comparison.pairs:
        yield f"## {comparison.reference} minus the others\n"
        yield from _differences(comparison.pairs)
        yield f"\nOn seeds that both have; with fewer than {LEAST_PAIRS} nothing is concluded.\n"
        yield f"## Against {comparison.reference}\n"
        yield from _against(comparison, changes)
        yield ""
        yield _AGAINST_NOTE.format(reference=comparison.reference)
    if any(row.tokens for row in comparison.methods):
        yield "## Language models\n"
        yield from _table(
            ("method", "million tokens", "dollars"),
            ((row.method, f"{row.tokens / _MILLION:.3f}", f"{row.dollars:.2f}") for row in comparison.methods),
        )
        yield "\nMeans of a search, prompts and replies, at the prices of its settings.\n"


def _results(comparison: Comparison, unit: str) -> Iterator[str]:
    first = next((row for row in comparison.methods if row.is_static), None)
    head = ("method", "type", "validation", "test", "gain", "phases", unit, "wall hours", "to best static")
    rows = (
        (
            row.method,
            "static" if row.is_static else "adaptive",
            spread(row.validation),
            spread(row.test),
            gain_over(row, first),
            f"{row.phases:.1f}",
            words.number(row.cost / _HOUR),
            words.number(row.wall / _HOUR),
            reached(row, first),
        )
        for row in comparison.methods
    )
    yield from _table(head, rows)
    yield ""


def _differences(pairs: Sequence[Pair]) -> Iterator[str]:
    head = ("method", "score", "difference", "95 % interval", "better on", "effect size", "shown")
    rows = (
        (pair.other, split, *_difference(found))
        for pair in pairs
        for split, found in (("validation", pair.validation), ("test", pair.test))
        if found is not None
    )
    yield from _table(head, rows)


def _difference(found: PairedDifference) -> tuple[str, ...]:
    mean = found.difference
    return (
        f"{mean.mean:+.3f}",
        f"{mean.low:+.3f} to {mean.high:+.3f}",
        f"{found.wins} of {mean.count}" + (f", {found.ties} equal" if found.ties else ""),
        "" if found.effect_size is None else f"{found.effect_size:.2f}",
        "yes" if found.is_clear else "no",
    )


def _against(comparison: Comparison, changes: Mapping[str, str]) -> Iterator[str]:
    rows = {row.method: row for row in comparison.methods}
    own = rows.get(comparison.reference)
    head = ("method", "changes", "test", "compute", "speed", f"{comparison.reference} saves", "wall-clock")
    body = [
        (pair.other, changes.get(pair.other, ""), spread(rows[pair.other].test), *_ratios(pair))
        for pair in comparison.pairs
    ]
    first = [] if own is None else [(own.method, changes.get(own.method, ""), spread(own.test), "1x", "1x", "", "1x")]
    yield from _table(head, [*first, *body])


def _ratios(pair: Pair) -> tuple[str, ...]:
    saved = "" if pair.speed is None else f"{1.0 - pair.speed.value:.0%}"
    return _ratio(pair.compute), _ratio(pair.speed), saved, _ratio(pair.wall)


def _ratio(found: Ratio | None) -> str:
    if found is None:
        return ""
    interval = f" ({found.low:.2f} to {found.high:.2f})" if found.count >= LEAST_PAIRS else ""
    return f"{found.value:.2f}x{interval}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for line in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(line)} |"
