"""What the other processes of a job on several machines do: serve the head's, and never outlive it."""

from __future__ import annotations

import signal
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.claim import is_superseded
from llmzero_hpc.cluster.head_file import BEAT_LOOKS, SILENT_LOOKS, HeadReader, HeadWord
from llmzero_hpc.cluster.job_environment import job_id, restart_count
from llmzero_hpc.cluster.processes import kill_stragglers
from llmzero_hpc.cluster.ray_cluster import RayNode, ray_environment
from llmzero_hpc.cluster.reaper import reaped
from llmzero_hpc.cluster.submitit_files import clear_unfinished
from llmzero_hpc.store.atomic import create_bytes, remove
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from types import FrameType

    from llmzero_hpc.cluster.phase_job import PhaseJob


class Follower:
    """A process of a job other than the first, in its main thread; there is one on each machine."""

    def __init__(self, job: PhaseJob, rank: int) -> None:
        self._job, self._rank = job, rank
        self._attempt = AttemptDirectory(Path(job.directory))
        self._restart = restart_count()
        self._run = uuid.uuid4().hex
        self._head = HeadReader(self._attempt.head(self._restart))
        self._looks = 0
        self._stopped_at: float | None = None
        self._ray: RayNode | None = None

    def run(self) -> None:
        """Returns when the head has ended, does not speak any more, or is another job's."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # what to do is for the head to say
        signal.signal(signal.SIGTERM, self._on_stop)
        while self._is_wanted() and self._head.read() is None:
            time.sleep(self._job.watch_seconds)
        word, presence = self._head.read(), self._attempt.present(self._restart, self._rank)
        if word is None or word.ended or word.job_id != job_id() or not create_bytes(presence, b""):
            return
        clear_unfinished(job_id(), self._rank)
        with reaped(self._run, self._job.directory):
            try:
                while self._is_wanted():
                    self._serve(self._head.read())
                    time.sleep(self._job.watch_seconds)
            finally:
                kill_stragglers(self._run)
                if self._ray:
                    self._ray.remove()
                remove(presence)

    def _serve(self, word: HeadWord | None) -> None:
        """Join the head's Ray once it listens. Whether this one lives is for the trainer to see."""
        if word is None or not word.ray_address or self._stopped_at is not None:
            return
        if self._ray is None:
            environment = self._job.trainer_environment(self._run, self._restart, word.ray_address.rpartition(":")[0])
            environment = ray_environment(environment, self._attempt.ray_token(self._restart))
            self._ray = RayNode(self._job.ray_scripts, self._attempt.ray_log(self._rank), environment)
        self._ray.keep_worker(word.ray_address)

    def _is_wanted(self) -> bool:
        word = self._head.read()
        if word is not None and word.ended:
            return False
        if self._stopped_at is not None and time.monotonic() > self._stopped_at + self._job.grace_seconds:
            return False
        if self._head.silent_seconds() > SILENT_LOOKS * self._job.watch_seconds:
            return False
        # The head looks each time, and says so by its end.
        self._looks += 1
        return self._looks % BEAT_LOOKS != 0 or not is_superseded(self._attempt, self._restart)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        # The head got the same signal, and its command may need this machine to save.
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
