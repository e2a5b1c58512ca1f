"""Who runs an attempt: one claim for each of its runs, and whether a newer run has taken over."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.atomic import create_bytes, read_bytes
from llmzero_hpc.store.phase_directory import AttemptDirectory, PhaseDirectory
from llmzero_hpc.store.records import decoded, encoded


@dataclass(frozen=True, slots=True)
class Claim:
    """The process that runs an attempt: the head of the job `job_id` (empty without Slurm). Seconds since the epoch."""

    pid: int
    claimed_at: float
    job_id: str = ""
    host: str = ""


def take_claim(attempt: AttemptDirectory, restart: int, job_id: str) -> bool:
    """Put this process' name on a run; of several copies, on any host, exactly one succeeds.

    Raises:
        StorageError: the file system refused.
    """
    claim = Claim(os.getpid(), time.time(), job_id, socket.gethostname())
    return create_bytes(attempt.claim(restart), encoded(claim))


def read_claim(attempt: AttemptDirectory) -> Claim | None:
    """The claim of the newest run; None while there is none.

    Raises:
        StorageError: the folder cannot be read.
    """
    runs = attempt.claimed_runs()
    return decoded(Claim, read_bytes(attempt.claim(runs[-1]))) if runs else None


def is_superseded(attempt: AttemptDirectory, restart: int) -> bool:
    """Whether a newer run of this attempt has begun, or a newer attempt was made.

    Lists two folders rather than asking for names: network file systems remember for long that a name was not there.
    A folder that cannot be read says nothing.
    """
    try:
        if any(run > restart for run in attempt.claimed_runs()):
            return True
        others = PhaseDirectory(attempt.path.parent.parent).attempts()
    except StorageError:
        return False
    own = attempt.path.name
    return own.isdecimal() and any(int(other.path.name) > int(own) for other in others)
