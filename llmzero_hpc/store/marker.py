"""The marker: the last file that each run of a job writes, its own word on how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmzero_hpc.store.atomic import read_bytes, write_bytes
from llmzero_hpc.store.records import decoded, encoded

if TYPE_CHECKING:
    from llmzero_hpc.store.phase_directory import AttemptDirectory

Outcome = Literal["completed", "error", "infrastructure_error", "time_limit", "terminated"]


@dataclass(frozen=True, slots=True)
class Marker:
    """How a run of a job ended.

    Attributes:
        name: the job's name; a marker under another name is somebody else's.
        attempt: the submission that it belongs to.
        restart: requeues of that submission before this run.
        started_at, ended_at: seconds since the epoch.
        exit_code: of the trainer.
        outcome: `completed`, `error` (the trainer's own), `infrastructure_error` (a machine, the network or a disk
            failed it), `time_limit` (its time was up, and another run of the same job is not worth its while), or
            `terminated` (somebody ended it).
        problem: why it failed, one line; empty where nobody said.
    """

    name: str
    attempt: int
    restart: int
    started_at: float
    ended_at: float
    exit_code: int
    outcome: Outcome
    problem: str = ""


def read_marker(attempt: AttemptDirectory) -> Marker | None:
    """The marker of the newest run that left one; None where there is none, or none that this program wrote.

    It is renamed into place, never torn, and each run has a file of its own: a late one changes no newer one's word.

    Raises:
        StorageError: a file cannot be read.
    """
    for restart in reversed(attempt.marked_runs()):
        marker = decoded(Marker, read_bytes(attempt.marker(restart)))
        if marker is not None and marker.restart == restart:
            return marker
    return None


def write_marker(attempt: AttemptDirectory, marker: Marker) -> None:
    """Write the marker of a run, last of all.

    Raises:
        StorageError: the file system refused.
    """
    write_bytes(attempt.marker(marker.restart), encoded(marker))
