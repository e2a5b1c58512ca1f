"""What sacct prints of jobs: a row for each run of each. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import Charge, JobObservation
from llmzero_hpc.cluster.slurm_queue import FIELD_END, seconds, word
from llmzero_hpc.cluster.slurm_states import state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.cluster.slurm_queue import QueuedJob

BOOK_FORMAT = "JobIDRaw,JobName,State,Submit,Start,End,ElapsedRaw,AllocTRES,NodeList,WorkDir"
"""For `sacct --parsable --format`, with FIELD_END for its delimiter. Times need SLURM_TIME_FORMAT=%s."""

_DEVICES = re.compile(r"(?P<kind>cpu|gres/gpu(?P<type>:[^=]*)?)=(?P<count>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job: a requeue ends it and begins another. Times are seconds since the epoch.

    `devices` are its GPUs, or its CPUs where it had none; `folder` is where it started.
    """

    job_id: str
    name: str
    state: str
    submitted_at: float | None
    started_at: float | None
    ended_at: float | None
    elapsed_seconds: float
    devices: int
    hosts: str
    folder: str

    @property
    def is_end(self) -> bool:
        """The run is over, and not by a requeue that the books show."""
        state = state_of(self.state)
        return self.ended_at is not None and state is not None and not state.is_live


def parse_books(text: str) -> list[Run]:
    """The rows of `sacct --noheader --parsable --format BOOK_FORMAT`, each job's runs from its first to its last.

    Raises:
        ValueError: it is torn, or not what was asked for.
    """
    rows = text.split(f"{FIELD_END}\n")
    if rows.pop().strip():
        raise ValueError("the last row has no end")
    runs = [_run(row.split(FIELD_END)) for row in rows]
    return sorted(runs, key=lambda run: (run.submitted_at or 0.0, run.started_at or float("inf")))


def _run(fields: list[str]) -> Run:
    count = BOOK_FORMAT.count(",") + 1
    if len(fields) != count:
        raise ValueError(f"a row has {len(fields)} fields instead of {count}")
    job_id, name, state, submitted, started, ended, elapsed, allocated, hosts, folder = fields
    return Run(
        job_id=job_id,
        name=name,
        state=state,
        submitted_at=seconds(submitted),
        started_at=seconds(started),
        ended_at=seconds(ended),
        elapsed_seconds=seconds(elapsed) or 0.0,
        devices=_devices(allocated),
        hosts=word(hosts),
        folder=folder,
    )


def _devices(allocated: str) -> int:
    """GPUs of an AllocTRES like `cpu=8,gres/gpu=2,gres/gpu:a100=2`, CPUs where there are none."""
    plain = typed = cpus = 0
    for item in allocated.split(","):
        match = _DEVICES.fullmatch(item)
        if match is None:
            continue
        count = int(match["count"])
        if match["kind"] == "cpu":
            cpus = count
        elif match["type"]:
            typed += count
        else:
            plain = count
    return plain or typed or cpus


def charge_of(runs: Sequence[Run], row: QueuedJob | None) -> Charge:
    """What the runs of one job cost, final once the job has ended and the books hold the end of each run.

    `row` is the job in the queue, None where only the books know it.
    """
    cost = sum(run.elapsed_seconds * run.devices for run in runs)
    complete = _hold_the_end(runs, row) and all(run.ended_at is not None for run in runs)
    return Charge(cost, final=complete)


def _hold_the_end(runs: Sequence[Run], row: QueuedJob | None) -> bool:
    if row is None:
        return bool(runs) and runs[-1].is_end
    if row.is_live:
        return False
    # A job that is cancelled just when it is queued again may end without the run that its restarts announce.
    started = {run.started_at for run in runs if run.hosts}
    return len(started) >= row.restarts + bool(row.hosts) or (bool(row.hosts) and row.started_at in started)


def last_word(runs: Sequence[Run]) -> JobObservation | None:
    """How a job ended that only the books still know; None while its last run has no end there."""
    last = runs[-1]
    state = state_of(last.state)
    if state is None or not last.is_end:
        return None
    started_at = last.started_at if last.hosts else None
    return JobObservation(state, started_at, last.state, len(runs) - 1, last.hosts)
