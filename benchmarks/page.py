"""docs/benchmarks.md from the figures."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from growth import Growth
from login_cost import TICK_SECONDS, LoginCost
from measuring import HEAVY
from slurm_cost import Gaps, Watch
from status_cost import PARALLEL, ImportTime, StatusCost
from views_cost import ViewsCost

from llmzero_hpc.sections import EarlyStop

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MEGABYTE = 1e6
_SHOWN_IMPORTS = 8
_JUDGEMENTS_AN_HOUR = 3600 / EarlyStop().interval_seconds
"""Of one phase, at the default interval."""
_MEMORY_GOAL = 80 * _MEGABYTE
_STATUS_GOAL = 0.3


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was measured; `judged` belongs pairwise to `calm`."""

    calm: tuple[LoginCost, ...]
    judged: tuple[LoginCost, ...]
    growth: tuple[Growth, ...]
    status: tuple[StatusCost, ...]
    imports: tuple[ImportTime, ...]
    views: ViewsCost
    slurm: tuple[Watch, ...]
    """Empty where no Slurm could be started."""
    gaps: tuple[Gaps, ...]
    machine: tuple[tuple[str, str], ...]


def written(figures: Figures) -> str:
    """The page."""
    slurm = [_slurm(figures)] if figures.slurm else []
    parts = [_head(figures), _login(figures), *slurm, _memory(figures), _status(figures), _growth(figures)]
    return "\n\n".join(_filled(block) for part in parts for block in part.split("\n\n")) + "\n"


def _filled(block: str) -> str:
    """A paragraph with lines of even length; tables, headings and comments as they are."""
    return block if block.startswith(("|", "#", "<!--")) else textwrap.fill(" ".join(block.split()), 120)


def _head(figures: Figures) -> str:
    return f"""\
<!-- Written by `make bench` (python benchmarks/run.py). Do not edit. -->

# Benchmarks

What the program costs the machine that it runs on, without the training. Seconds are CPU seconds (user and system)
unless they are called wall seconds; processes are measured in turns and the median is shown. Compare the ratios, and
measure again on your own machine: `make bench`.

{_table(("measured on", ""), figures.machine)}"""


def _login(figures: Figures) -> str:
    rows = [("phases that run / have ended", *(f"{cost.phases} / {cost.settled:,}" for cost in figures.calm))]
    rows += [
        ("CPU seconds of a tick", *(f"{cost.cpu:.4f}" for cost in figures.calm)),
        ("cluster calls of a tick", *(f"{cost.calls:g}" for cost in figures.calm)),
        ("commits of a tick", *(f"{cost.commits:g}" for cost in figures.calm)),
        ("bytes written in a tick", *(f"{cost.written_bytes:,.0f}" for cost in figures.calm)),
        ("CPU seconds of one judgement", *(f"{_judgement(*pair):.4f}" for pair in _pairs(figures))),
        ("**CPU seconds an hour**", *(f"**{_an_hour(*pair):.1f}**" for pair in _pairs(figures))),
        ("**cluster calls an hour**", *(f"**{cost.calls * cost.ticks_an_hour:.0f}**" for cost in figures.calm)),
        (
            "megabytes written an hour",
            *(f"{cost.written_bytes * cost.ticks_an_hour / _MEGABYTE:,.0f}" for cost in figures.calm),
        ),
        ("CPU seconds of the start", *(f"{cost.start_cpu:.2f}" for cost in figures.calm)),
    ]
    views, first = figures.views, figures.calm[0]
    return f"""\
## The login node, while {first.phases} phases run

A real controller watches {first.phases} rehearsal phases on this machine for {first.ticks} ticks, and only its own
process is counted. It ticks faster than it would in use, each phase makes about one step between two ticks, and the
hour is that of the default interval: {TICK_SECONDS:g} s, {first.ticks_an_hour:.0f} ticks, {_JUDGEMENTS_AN_HOUR:.0f}
judgements of each phase by the playbook. A tick asks the cluster once, however many phases run; each submission and
each cancellation adds one call. The local cluster looks through all processes of the machine at that ({first.processes}
here). The start is everything until all phases run: reading the state and {first.phases} submissions.

{_table(rows[0], rows[1:])}

When a phase ends, plots, HDF5 files and the report are refreshed in a process of its own, at low priority. Beside
{views.phases - 1} others that takes {views.one_ended.cpu:.1f} CPU seconds; {views.nothing_changed.cpu:.1f} when nothing
has changed, {views.all_at_once.cpu:.1f} for all {views.phases} phases at once. `live_views: false` leaves it out."""


def _slurm(figures: Figures) -> str:
    hour = 3600.0 / TICK_SECONDS
    rows = [
        ("running jobs", *(f"{cost.jobs}" for cost in figures.slurm)),
        ("squeue calls an hour", *(f"{cost.squeue * hour:.0f}" for cost in figures.slurm)),
        ("sacct calls an hour", *(f"{cost.sacct * hour:.0f}" for cost in figures.slurm)),
        ("CPU seconds an hour, controller", *(f"{cost.own_cpu * hour:.1f}" for cost in figures.slurm)),
        ("CPU seconds an hour, its Slurm commands", *(f"{cost.commands_cpu * hour:.1f}" for cost in figures.slurm)),
        ("peak memory of the controller", *(f"{cost.peak_memory / _MEGABYTE:.0f} MB" for cost in figures.slurm)),
    ]
    waits = "; ".join(
        f"{gap.median:.0f} s with a tick every {gap.tick_seconds:g} s (from {min(gap.seconds):.0f} to "
        f"{max(gap.seconds):.0f} s, {len(gap.seconds)} phases)"
        for gap in figures.gaps
    )
    return f"""\
## Slurm, while jobs run

A real Slurm on this machine, jobs that sleep under the names of phases, and the real controller at
{figures.slurm[0].ticks} ticks; the hour is that of the default interval, {TICK_SECONDS:g} s. sacct is asked only about
jobs that squeue no longer shows as live. Each submission adds one sbatch, each cancellation one scancel.

{_table(rows[0], rows[1:])}

From the end of a job to the submission of the next, by Slurm's own clock and in median: {waits}."""


def _memory(figures: Figures) -> str:
    def row(what: str, peak: int, modules: Iterable[str]) -> tuple[str, ...]:
        heavy = sorted(HEAVY.intersection(modules))
        return what, f"{peak / _MEGABYTE:.0f} MB", ", ".join(heavy) or "none"

    rows = [
        row(f"controller, {cost.phases} running and {cost.settled:,} ended phases", cost.peak_memory, cost.modules)
        for cost in figures.judged
    ]
    for cost in figures.status:
        rows.append(row(f"`status`, {cost.nodes:,} phases", cost.status_memory.peak_memory, cost.status_memory.modules))
        rows.append(
            row(f"`status --json`, {cost.nodes:,} phases", cost.json_memory.peak_memory, cost.json_memory.modules)
        )
    most = figures.judged[0].peak_memory
    return f"""\
## Memory

Peak resident size. The goal for a controller with {figures.judged[0].phases} running phases is under
{_MEMORY_GOAL / _MEGABYTE:.0f} MB: {_verdict(most < _MEMORY_GOAL)}. Heavy are {", ".join(sorted(HEAVY, key=str.lower))}.

{_table(("process", "peak", "heavy packages loaded"), rows)}"""


def _status(figures: Figures) -> str:
    rows = [
        (
            f"{cost.nodes:,}",
            f"{cost.status.cpu:.2f} s",
            f"{cost.status.wall:.2f} s",
            f"{cost.as_json.cpu:.2f} s",
            f"{cost.status.cpu / cost.python.cpu:.0f}",
            f"{cost.status.cpu / cost.libraries.cpu:.1f}",
        )
        for cost in figures.status
    ]
    first = figures.status[0]
    verdict = _verdict(first.status.cpu < _STATUS_GOAL)
    total = sum(item.seconds for item in figures.imports)
    imports = [
        (item.package, f"{1000 * item.seconds:.0f} ms", f"{item.seconds / total:.0%}")
        for item in figures.imports[:_SHOWN_IMPORTS]
    ]
    header = (
        "phases",
        "`status`",
        "wall, with the load above",
        "`status --json`",
        "times bare Python",
        "times the libraries",
    )
    return f"""\
## `status`

{PARALLEL} phases run, and `status` reads their metrics. The goal for a search of {first.nodes} phases is under
{_STATUS_GOAL:g} s; by CPU time, which other load lengthens less than wall time: {verdict}.
Bare Python is `python -c pass` ({first.python.cpu:.3f} s), the libraries are `python -c 'import typer, rich, pydantic'`
({first.libraries.cpu:.3f} s).

{_table(header, rows)}

Imports take {total:.2f} s (measuring them included), by package without what each brings along:

{_table(("package", "own import time", "share"), imports)}"""


def _growth(figures: Figures) -> str:
    base = figures.growth[0]
    rows = [
        (
            f"{cost.nodes:,}",
            f"{1000 * cost.select:.2f} ms ({cost.select / base.select:.0f})",
            f"{1000 * cost.write_tree:.1f} ms ({cost.write_tree / base.write_tree:.0f})",
            f"{1000 * cost.read_tree:.1f} ms ({cost.read_tree / base.read_tree:.0f})",
            f"{cost.bytes:,} ({cost.bytes / base.bytes:.0f})",
            f"{cost.peak_memory / _MEGABYTE:.0f} MB",
        )
        for cost in figures.growth
    ]
    header = ("phases", "selection", "commit", "reading", "bytes of `tree.json`", "peak memory")
    return f"""\
## Large trees

CPU time of one selection, one commit (encode, read back and compare, write, sync) and one reading of `tree.json`; in
brackets, how many times that of {base.nodes} phases. A cost is linear where it grows by as much as the phases; what
goes beyond at the largest size is Python's garbage collector. Phases have configuration, rationale, an attempt and up
to five checkpoints each.

{_table(header, rows)}"""


def _pairs(figures: Figures) -> list[tuple[LoginCost, LoginCost]]:
    return list(zip(figures.calm, figures.judged, strict=True))


def _judgement(calm: LoginCost, judged: LoginCost) -> float:
    """CPU seconds of judging one phase once."""
    return max(0.0, judged.cpu - calm.cpu) / calm.phases


def _an_hour(calm: LoginCost, judged: LoginCost) -> float:
    judgements = _judgement(calm, judged) * calm.phases * _JUDGEMENTS_AN_HOUR
    return calm.cpu * calm.ticks_an_hour + judgements


def _verdict(met: bool) -> str:
    return "met" if met else "**not met**"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
