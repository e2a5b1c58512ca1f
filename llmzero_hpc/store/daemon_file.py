"""What the controller last said of itself, for `status` on any login node: its heartbeat, and its job in the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.store.atomic import read_bytes, remove, write_bytes
from llmzero_hpc.store.records import decoded, encoded

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory

_SILENT_TICKS, _SILENT_SECONDS = 5, 300.0
_SILENT_BETWEEN_CRONS = 900.0


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
        job_id: the cluster's job in which it runs; empty outside of one.
        by_cron: cron starts it for one tick at a time, so that nobody holds the search in between.
        error_since: since when every tick has met an error; None while `last_error` is empty.
        api_dollars, api_calls, api_tokens: what the agents' language models have cost the search so far.
        server: how the agents' own language model server stands, for people; empty where there is none.
        server_device_seconds: what that server has cost the search so far.
        server_devices: what it is charged for each second.
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
    job_id: str = ""
    by_cron: bool = False
    error_since: float | None = None
    api_dollars: float = 0.0
    api_calls: int = 0
    api_tokens: int = 0
    server: str = ""
    server_device_seconds: float = 0.0
    server_devices: int = 0


@dataclass(frozen=True, slots=True)
class QueuedController:
    """A controller's job that was handed to the cluster at `submitted_at`, and may not have started yet."""

    job_id: str
    submitted_at: float


def silence_seconds(tick_seconds: float, *, by_cron: bool = False) -> float:
    """After how long without a heartbeat a controller counts as silent."""
    return max(_SILENT_BETWEEN_CRONS if by_cron else _SILENT_SECONDS, _SILENT_TICKS * tick_seconds)


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


def read_queued(directory: SearchDirectory) -> QueuedController | None:
    """The controller's newest job; None where there never was one.

    Raises:
        StorageError: the file cannot be read.
    """
    return decoded(QueuedController, read_bytes(_queued_file(directory)))


def write_queued(directory: SearchDirectory, queued: QueuedController) -> None:
    """Note the controller's job.

    Raises:
        StorageError: the file system refused.
    """
    write_bytes(_queued_file(directory), encoded(queued))


def clear_queued(directory: SearchDirectory) -> None:
    """The job has ended, or was taken out of the queue.

    Raises:
        StorageError: the file system refused.
    """
    remove(_queued_file(directory))


def _file(directory: SearchDirectory) -> Path:
    return directory.root / "daemon.json"


def _queued_file(directory: SearchDirectory) -> Path:
    return directory.root / "controller_job.json"
