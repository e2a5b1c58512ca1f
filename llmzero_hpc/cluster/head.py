"""What the first process of a job does: it claims the run, runs the trainer's command, and writes the marker last."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llmzero_hpc.cluster.claim import is_superseded, take_claim
from llmzero_hpc.cluster.command import TIME_LIMIT, Command
from llmzero_hpc.cluster.head_file import BEAT_LOOKS, HeadFile
from llmzero_hpc.cluster.job_environment import job_id, own_address, restart_count
from llmzero_hpc.cluster.last_error import last_error
from llmzero_hpc.cluster.processes import kill_stragglers
from llmzero_hpc.cluster.ray_cluster import RayNode, create_token, ray_environment, wait_for_nodes
from llmzero_hpc.cluster.reaper import reaped
from llmzero_hpc.cluster.submitit_files import clear_unfinished
from llmzero_hpc.cluster.time_left import seconds_left
from llmzero_hpc.cluster.watch import looking
from llmzero_hpc.errors import INFRASTRUCTURE_EXIT_CODES, ClusterError, StorageError
from llmzero_hpc.store.atomic import remove
from llmzero_hpc.store.marker import Marker, write_marker
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from llmzero_hpc.cluster.phase_job import PhaseJob
    from llmzero_hpc.store.marker import Outcome

    Requeue = Callable[[int, FrameType | None], object]

_LEAVING_LOOKS = 5
_LOST_SECONDS = 30.0
"""How long a machine may be out of reach after the command has failed; Ray starts a process on it to answer."""
_SENT_BY_OTHERS = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP})
"""Signals that a command does not send itself: a person, a shutdown, or a kernel short of memory."""
_SIGNAL_SLACK_SECONDS = 90.0
"""Slurm announces the time limit up to a minute early, and the command takes a while to stop."""


class Head:
    """One run of a phase job, in the main thread of the job's first process.

    Signals only ask the command to stop; everything else happens in order, after it has. SIGTERM ends the job.
    SIGUSR2 announces a preemption or the time limit: the handler that was there before, submitit's, is called once the
    command has stopped, and queues the job again.
    """

    def __init__(self, job: PhaseJob) -> None:
        self._job = job
        self._attempt = AttemptDirectory(Path(job.directory))
        self._restart = restart_count()
        self._run = uuid.uuid4().hex
        self._command = Command(job.grace_seconds)
        self._superseded = False
        self._fault = ""
        """What the command has no part in and cannot go on without."""
        self._needs_ray = False
        self._looks = 0
        self._head_file: HeadFile | None = None
        self._ray: RayNode | None = None

    def run(self) -> int:
        """The exit code of the command; 0 where the run is another process' already."""
        requeue = signal.signal(signal.SIGUSR2, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        if not take_claim(self._attempt, self._restart, job_id()):
            return 0
        clear_unfinished(job_id(), rank=0)
        started_at, checkpoints = time.time(), self._checkpoints()
        with self._attempt.trainer_log.open("ab", buffering=0) as log:
            log_start = log.tell()
            # On one's own machine the cluster finds a command that lost its phase job, and cancels it.
            reaper = reaped(self._run, self._job.directory) if job_id() else contextlib.nullcontext()
            with looking(self._job.watch_seconds, self._look), reaper:
                try:
                    exit_code = self._train(log)
                finally:
                    self._clear_up()
            if self._superseded:
                return exit_code
            outcome = self._outcome(exit_code)
            if self._command.stop_cause or self._fault:
                _note(log, f"ended: {self._command.stop_cause or self._fault}")
            if outcome == "terminated" and self._command.stop_cause == signal.SIGUSR2.name and callable(requeue):
                if self._is_time_up() and self._checkpoints() <= checkpoints:
                    _note(log, "not queued again: no checkpoint was gained before the time limit")
                    outcome = "time_limit"
                else:
                    self._ask_for_requeue(requeue, log)
        problem = ""
        if outcome in {"error", "infrastructure_error"}:
            problem = self._fault or last_error(self._attempt.trainer_log, log_start)
        run = (self._job.name, self._job.attempt, self._restart)
        write_marker(self._attempt, Marker(*run, started_at, time.time(), exit_code, outcome, problem))
        self._let_the_others_leave()
        return exit_code

    def _train(self, log: IO[bytes]) -> int:
        job = self._job
        address = own_address(job.nodes)
        if job.nodes > 1:
            self._head_file = HeadFile(self._attempt.head(self._restart), job_id())
        environment = job.trainer_environment(self._run, self._restart, address)
        if job.ray_scripts:
            try:
                environment = self._with_ray(environment)
            except (ClusterError, OSError) as error:
                self._fault = str(error)
                return os.EX_UNAVAILABLE
        self._needs_ray = self._ray is not None
        exit_code = self._command.run(job.command, job.directory, environment, log, job.time_limit_seconds)
        self._needs_ray = False
        if exit_code and self._ray and not self._command.is_stopped():
            self._fault = self._ray.problem
            if job.nodes > 1 and not self._fault:
                self._look_for_lost_machines(environment)
        return exit_code

    def _with_ray(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment of a command that uses Ray, which runs on all machines."""
        job, stopped = self._job, self._command.is_stopped
        token = create_token(self._attempt, self._restart)
        environment = ray_environment(environment, token)
        self._ray = RayNode(job.ray_scripts, self._attempt.ray_log(0), environment)
        address = self._ray.start_head(stopped)
        environment["RAY_ADDRESS"] = address
        if self._head_file and address:
            self._head_file.listens(address)
            wait_for_nodes(environment, job.nodes, job.ray_join_seconds, self._attempt.ray_log(0), stopped)
        return environment

    def _look_for_lost_machines(self, environment: Mapping[str, str]) -> None:
        """A command that fails when Ray loses a machine, minutes before Slurm does, has not failed by itself."""
        try:
            log, stopped = self._attempt.ray_log(0), self._command.is_stopped
            wait_for_nodes(environment, self._job.nodes, _LOST_SECONDS, log, stopped)
        except ClusterError as error:
            self._fault = f"a machine was lost: {error.message}"

    def _clear_up(self) -> None:
        """Leave nothing on this machine, and let the others do the same."""
        kill_stragglers(self._run)
        if self._head_file:
            self._head_file.end()
        if self._ray:
            self._ray.remove()
            with contextlib.suppress(StorageError):
                remove(self._attempt.ray_token(self._restart))

    def _look(self) -> None:
        self._looks += 1
        if self._head_file and self._looks % BEAT_LOOKS == 0:
            self._head_file.beat()
        if is_superseded(self._attempt, self._restart):
            # What it would save now might fall upon what the newer run writes.
            self._superseded = True
            self._command.kill("a newer run")
        # Asked in this order: Ray is ended along with a command that has ended.
        problem = self._ray.problem if self._ray else ""
        if problem and self._needs_ray and not self._fault:
            self._fault = problem
            # A trainer may wait minutes, or for ever, for what was in it.
            self._command.stop(problem)

    def _outcome(self, exit_code: int) -> Outcome:
        if exit_code == 0:
            return "completed"
        if self._command.stop_cause == TIME_LIMIT:
            return "time_limit"
        if self._fault and self._command.stop_cause in {"", self._fault}:
            return "infrastructure_error"
        if self._command.stop_cause or -exit_code in _SENT_BY_OTHERS:
            return "terminated"
        return "infrastructure_error" if exit_code in INFRASTRUCTURE_EXIT_CODES else "error"

    def _checkpoints(self) -> set[str]:
        if not self._job.progress:
            return set()
        try:
            return {path.name for path in Path(self._job.progress).iterdir() if not path.name.startswith(".")}
        except OSError:
            return set()

    def _is_time_up(self) -> bool:
        """Whether the signal came for the time limit; where nobody knows the limit, it may have."""
        left = seconds_left(job_id())
        return left is None or left <= self._job.signal_seconds + _SIGNAL_SLACK_SECONDS

    def _ask_for_requeue(self, requeue: Requeue, log: IO[bytes]) -> None:
        """Leaves by SystemExit when the job is queued again; its next run has the last word on the attempt."""
        try:
            requeue(signal.SIGUSR2, None)
        except Exception as error:  # noqa: BLE001 - some sites forbid it, and slurmctld may be away
            _note(log, f"not queued again: {' '.join(str(error).split())}")

    def _let_the_others_leave(self) -> None:
        """Without this srun would end them at once, as soon as this process exits with an error."""
        for _ in range(_LEAVING_LOOKS):
            if not any(self._attempt.present(self._restart, rank).exists() for rank in range(1, self._job.nodes)):
                return
            time.sleep(self._job.watch_seconds)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._command.stop(signal.Signals(number).name)


def _note(log: IO[bytes], text: str) -> None:
    log.write(f"\n[phase job] {text}\n".encode())
