"""The heartbeat: what the controller last said of itself, in `daemon.json`, for `status` on any login node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.store.atomic import read_bytes, write_bytes
from llmzero_hpc.store.records import decoded, encoded

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A controller at `beat_at`. Times are seconds since the epoch.

    Attributes:
        host, pid, boot_id: which process on which boot of which machine.
        started_at: when it began.
        ticks: reconciliations that it made.
        last_error: one line, empty when all is well.
        calls: questions and orders to the cluster so far, by the cluster's name for them.
        waiting_for: what it waits for, for people; empty when for nothing in particular.
    """

    host: str
    pid: int
    boot_id: str
    started_at: float
    beat_at: float
    ticks: int
    last_error: str
    calls: dict[str, int]
    waiting_for: str


def read_heartbeat(directory: SearchDirectory) -> Heartbeat | None:
    """The last heartbeat, or None where no controller ever ran or the file is not what one wrote.

    Raises:
        StorageError: the file cannot be read.
    """
    return decoded(Heartbeat, read_bytes(_file(directory)))


def write_heartbeat(directory: SearchDirectory, heartbeat: Heartbeat) -> None:
    """Replace the heartbeat.

    Raises:
        StorageError: the file system refused.
    """
    write_bytes(_file(directory), encoded(heartbeat))


def _file(directory: SearchDirectory) -> Path:
    return directory.root / "daemon.json"
