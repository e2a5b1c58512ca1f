"""What the other processes of a job on several machines do: serve the head's, and never outlive it."""

from __future__ import annotations

import signal
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.claim import is_superseded
from llmzero_hpc.cluster.head_file import HeadReader
from llmzero_hpc.cluster.job_environment import job_id, restart_count
from llmzero_hpc.cluster.processes import kill_stragglers
from llmzero_hpc.store.atomic import create_bytes, remove
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from types import FrameType

    from llmzero_hpc.cluster.phase_job import PhaseJob

SILENT_LOOKS = 300
"""A head that has not been heard of for so many looks is gone: it beats many times as often."""


class Follower:
    """A process of a job other than the first, in its main thread; there is one on each machine."""

    def __init__(self, job: PhaseJob, rank: int) -> None:
        self._job, self._rank = job, rank
        self._attempt = AttemptDirectory(Path(job.directory))
        self._restart = restart_count()
        self._run = uuid.uuid4().hex
        self._head = HeadReader(self._attempt.head(self._restart))
        self._stopped_at: float | None = None

    def run(self) -> None:
        """Returns when the head has ended, does not speak any more, or is another job's."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # what to do is for the head to say
        signal.signal(signal.SIGTERM, self._on_stop)
        while self._is_wanted() and self._head.read() is None:
            time.sleep(self._job.watch_seconds)
        word, presence = self._head.read(), self._attempt.present(self._restart, self._rank)
        if word is None or word.job_id != job_id() or not create_bytes(presence, b""):
            return
        try:
            while self._is_wanted():
                time.sleep(self._job.watch_seconds)
        finally:
            kill_stragglers(self._run)
            remove(presence)

    def _is_wanted(self) -> bool:
        word = self._head.read()
        if word is not None and word.ended:
            return False
        if self._stopped_at is not None and time.monotonic() > self._stopped_at + self._job.grace_seconds:
            return False
        silent = self._head.silent_seconds() > SILENT_LOOKS * self._job.watch_seconds
        return not silent and not is_superseded(self._attempt, self._restart)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        # The head got the same signal, and its command may need this machine to save.
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
