"""What squeue prints of jobs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmzero_hpc.cluster.base import JobObservation, JobState
from llmzero_hpc.cluster.slurm_states import state_of

FIELD_END: Final = "\x1f"
ROW_END: Final = "\x1e"
"""Of no name, path or reason; those may hold spaces, bars and whatever else a site likes."""

_FIELDS = ("JobID", "Name", "State", "RestartCnt", "StartTime", "SubmitTime", "NodeList", "WorkDir", "Reason")
QUEUE_FORMAT = ",".join(f"{field}:{ROW_END if field == _FIELDS[-1] else FIELD_END}" for field in _FIELDS)
"""For `squeue --Format`; a field with an ending and no width is never cut. Times need SLURM_TIME_FORMAT=%s."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job as squeue shows it, live or lately ended. Times are seconds since the epoch; `folder` is where it starts.

    `started_at` of a job that waits is Slurm's estimate.
    """

    job_id: str
    name: str
    state: str
    restarts: int
    started_at: float | None
    submitted_at: float | None
    hosts: str
    folder: str
    reason: str

    @property
    def is_live(self) -> bool:
        """Not ended. A word that is not known is not taken for an end."""
        state = state_of(self.state)
        return state is None or state.is_live

    @property
    def is_stuck(self) -> bool:
        """Slurm could not start it, has put it back into the queue, and holds it there until somebody comes."""
        return self.state == "PENDING" and self.reason.replace("_", " ") == "launch failed requeued held"

    def observation(self) -> JobObservation:
        """What it says of the job, without the cost."""
        state = state_of(self.state) or JobState.PENDING
        if state is JobState.PENDING:
            return JobObservation(state, reason=self.reason or self.state, restarts=self.restarts)
        # A job that is requeued shows the start of its next run while the last still comes to its end.
        started_at = None if self.state == "COMPLETING" else self.started_at
        words = [] if self.state == "RUNNING" else [self.state]
        if not state.is_live and self.reason:
            words.append(self.reason)
        return JobObservation(state, started_at if self.hosts else None, " ".join(words), self.restarts, self.hosts)


def parse_queue(text: str) -> list[QueuedJob]:
    """The rows of `squeue --noheader --Format QUEUE_FORMAT`.

    Raises:
        ValueError: it is torn, or not what was asked for.
    """
    rows = text.split(ROW_END)
    if rows.pop().strip():
        raise ValueError("the last row has no end")
    return [_row(row.lstrip("\n").split(FIELD_END)) for row in rows]


def _row(fields: list[str]) -> QueuedJob:
    if len(fields) != len(_FIELDS):
        raise ValueError(f"a row has {len(fields)} fields instead of {len(_FIELDS)}")
    job_id, name, state, restarts, started, submitted, hosts, folder, reason = fields
    return QueuedJob(
        job_id=job_id,
        name=name,
        state=state,
        restarts=int(restarts),
        started_at=seconds(started),
        submitted_at=seconds(submitted),
        hosts=word(hosts),
        folder=folder,
        reason=word(reason),
    )


def seconds(text: str) -> float | None:
    """A time as Slurm writes it under SLURM_TIME_FORMAT=%s; None for `N/A`, `Unknown` and the like."""
    return float(text) if text.isascii() and text.isdecimal() else None


def word(text: str) -> str:
    """A text without Slurm's ways to say that there is none."""
    return "" if text in {"(null)", "None", "None assigned", "N/A"} else text
