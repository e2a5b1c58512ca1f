"""Measures everything and writes docs/benchmarks.md; `make bench` runs it (about fourteen minutes).

    python benchmarks/run.py [PAGE] [--quick]

What VeRL costs is measured anew where LLMZERO_VERL_PYTHON names a Python that has it, and stays as it is elsewhere.
`--quick` measures tiny sizes once, to see that everything works; its figures say nothing.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import agent_tokens
import growth
import login_cost
import page
import slurm_cost
import status_cost
import verl_cost
import views_cost
from measuring import Progress, machine, part_in, with_part

from llmzero_hpc.store.atomic import write_bytes

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `interval` are the seconds between two ticks while a controller is watched."""

    sizes: tuple[int, ...] = (100, 1_000, 10_000)
    settled: tuple[int, ...] = (16, 1_000)
    phases: int = 8
    ticks: int = 40
    interval: float = 0.5
    repeats: int = 20
    viewed: int = 16
    slurm_jobs: tuple[int, ...] = (1, 16, 200)
    slurm_gaps: tuple[tuple[int, float], ...] = ((6, 1.0), (6, 30.0))
    """Phases of a search, and seconds between its ticks."""


QUICK = Plan(
    sizes=(10, 20),
    settled=(4,),
    phases=2,
    ticks=2,
    interval=0.2,
    repeats=1,
    viewed=2,
    slurm_jobs=(2,),
    slurm_gaps=((2, 1.0),),
)


def measure(plan: Plan, progress: Progress) -> page.Figures:
    """All figures, one thing after the other."""
    watched = []
    for settled in plan.settled:
        for judging in (False, True):
            progress(f"{plan.phases} running phases beside {settled} ended ones" + (", judged" if judging else ""))
            watched.append(
                login_cost.measured(plan.phases, plan.ticks, plan.interval, settled, judging=judging),
            )
    progress("selection and commit")
    grown = growth.measured(plan.sizes)
    looked = []
    for size in plan.sizes:
        # The start is what varies, and it is the same for all sizes.
        repeats = plan.repeats if size == plan.sizes[0] else min(plan.repeats, 5)
        progress(f"status of {size} phases, {repeats} times")
        looked.extend(status_cost.measured((size,), repeats))
    progress("imports")
    imports = status_cost.import_times(min(plan.repeats, 5))
    progress("pictures, HDF5 files and report")
    views = views_cost.measured(plan.viewed)
    slurm, gaps = _on_slurm(plan, progress) if slurm_cost.is_possible() else ((), ())
    return page.Figures(
        calm=tuple(watched[0::2]),
        judged=tuple(watched[1::2]),
        growth=tuple(grown),
        status=tuple(looked),
        imports=tuple(imports),
        views=views,
        slurm=slurm,
        gaps=gaps,
        machine=tuple(machine()),
    )


def _on_slurm(plan: Plan, progress: Progress) -> tuple[tuple[slurm_cost.Watch, ...], tuple[slurm_cost.Gaps, ...]]:
    watches = []
    for jobs in plan.slurm_jobs:
        progress(f"{jobs} jobs of a real Slurm")
        watches.append(slurm_cost.watched(jobs, plan.ticks, plan.interval))
    gaps = []
    for phases, tick_seconds in plan.slurm_gaps:
        progress(f"a search of {phases} jobs of a real Slurm, a tick every {tick_seconds:g} s")
        gaps.append(slurm_cost.gaps(phases, tick_seconds))
    return tuple(watches), tuple(gaps)


def _of_verl(path: Path, progress: Progress) -> str:
    python = os.environ.get("LLMZERO_VERL_PYTHON")
    if python:
        return verl_cost.section(verl_cost.measured(python, progress), verl_cost.environment_bytes(python))
    return part_in(path.read_text(encoding="utf-8"), verl_cost.SCRIPT) if path.exists() else ""


def main() -> None:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("page", type=Path, nargs="?", default=_PAGE)
    arguments.add_argument("--quick", action="store_true")
    chosen = arguments.parse_args()
    progress = Progress()
    figures = measure(QUICK if chosen.quick else Plan(), progress)
    size = agent_tokens.QUICK if chosen.quick else agent_tokens.SIZE
    tokens = agent_tokens.section(agent_tokens.measured(*size, progress), *size)
    text = with_part(page.written(figures), tokens)
    verl = _of_verl(chosen.page, progress)
    write_bytes(chosen.page, (with_part(text, verl) if verl else text).encode())
    print(f"wrote {chosen.page}")


if __name__ == "__main__":
    main()
