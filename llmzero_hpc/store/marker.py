"""The marker: the last file that a job writes, its own word on how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmzero_hpc.store.atomic import read_bytes, write_bytes
from llmzero_hpc.store.records import decoded, encoded

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Marker:
    """How a job ended.

    Attributes:
        name: the job's name; a marker under another name is somebody else's.
        attempt: the submission that it belongs to.
        restart: requeues of that submission before this end.
        started_at, ended_at: seconds since the epoch.
        exit_code: of the trainer.
        outcome: `completed`, `error` (the trainer's own), or `terminated` (somebody ended it).
    """

    name: str
    attempt: int
    restart: int
    started_at: float
    ended_at: float
    exit_code: int
    outcome: Literal["completed", "error", "terminated"]


def read_marker(path: Path) -> Marker | None:
    """The marker, or None where there is none, or none that this program wrote: it is renamed into place, never torn.

    Raises:
        StorageError: the file cannot be read.
    """
    return decoded(Marker, read_bytes(path))


def write_marker(path: Path, marker: Marker) -> None:
    """Write the marker, last of all.

    Raises:
        StorageError: the file system refused.
    """
    write_bytes(path, encoded(marker))
