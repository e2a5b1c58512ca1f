"""What runs inside every job: it claims the attempt, runs the trainer's command, and writes the marker last.

Imports stay small, as every job pays for them, on every node.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from llmzero_hpc.cluster.processes import JOB_VARIABLE, job_folder, kill_stragglers
from llmzero_hpc.store.atomic import create_bytes, json_bytes
from llmzero_hpc.store.marker import Marker, write_marker
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

SCRUBBED_PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "PMI", "PMIX_", "SUBMITIT_")
"""A trainer that sees these takes itself for a rank of the outer job."""
ATTEMPT_VARIABLE, RESTART_VARIABLE = "LLMZERO_ATTEMPT", "LLMZERO_RESTART"
"""What the trainer puts into each of its metric rows."""
KEPT = frozenset({"SLURM_CONF"})

_SENT_BY_OTHERS = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP})
"""Signals that a command does not send itself: a person, a shutdown, or a kernel short of memory."""

_EXITED_UNREAPED = os.WEXITED | os.WNOWAIT | os.WNOHANG

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a shell for a command that cannot be started."""


def restart_count() -> int:
    """How often Slurm requeued this job; 0 elsewhere."""
    text = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(text) if text.isdigit() else 0


def claim_file(directory: Path, restart: int = 0) -> Path:
    """Where the one process that runs this attempt has put its name; each requeue claims anew."""
    return directory / (f"claim-{restart}" if restart else "claim")


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the traces of the job that surrounds it."""
    return {key: value for key, value in environment.items() if key in KEPT or not key.startswith(SCRUBBED_PREFIXES)}


@dataclass
class PhaseJob:
    """One attempt of a phase as submitit pickles and calls it. Plain data, so that a later version can read it.

    Called in a process' main thread. A second copy of the same attempt returns at once and touches nothing.
    `time_limit_seconds` is None where the cluster keeps the limit. `gpu_ids` are the values for CUDA_VISIBLE_DEVICES;
    None leaves what the cluster has set.
    """

    name: str
    directory: str
    command: list[str]
    environment: dict[str, str]
    attempt: int
    devices: int
    gpus: bool
    time_limit_seconds: float | None
    grace_seconds: float = 10.0
    gpu_ids: list[str] | None = None
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _stop_cause: str = field(default="", init=False, repr=False)

    @property
    def folder(self) -> str:
        """Of its submission, which tells its processes from all others on a machine."""
        return job_folder(Path(self.directory), self.name)

    def request(self) -> dict[str, Any]:
        """Its fields as JSON takes them: `PhaseJob(**request)` makes it again."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}

    def __getstate__(self) -> dict[str, Any]:
        """Without the running command."""
        return {**self.__dict__, "_child": None, "_stop_cause": ""}

    def __call__(self) -> int:
        """Run the attempt; the exit code of its command, negative for a signal."""
        directory, restart = Path(self.directory), restart_count()
        # Ctrl-C in a terminal is for the controller alone; the command inherits this.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGALRM, self._on_alarm)
        if not self._claim(directory, restart):
            return 0
        started_at = time.time()
        attempt = AttemptDirectory(directory)
        with attempt.trainer_log.open("ab", buffering=0) as log:
            exit_code = self._run(log)
            signal.setitimer(signal.ITIMER_REAL, 0)
            kill_stragglers(self.folder)
            if self._stop_cause:
                log.write(f"\n[phase job] ended from outside: {self._stop_cause}\n".encode())
        outcome = self._outcome(exit_code)
        write_marker(
            attempt.marker, Marker(self.name, self.attempt, restart, started_at, time.time(), exit_code, outcome)
        )
        return exit_code

    def checkpoint(self) -> Any:
        """What submitit queues again when the cluster takes the nodes away: this job, its command stopped first."""
        from submitit.helpers import DelayedSubmission

        self._on_stop(signal.SIGUSR2, None)
        # This runs in a signal handler, inside the `wait` below: asking Popen again would wait for its own lock.
        while self._child is not None and not os.waitid(os.P_PID, self._child.pid, _EXITED_UNREAPED):
            time.sleep(0.05)
        kill_stragglers(self.folder)
        return DelayedSubmission(self)

    def _claim(self, directory: Path, restart: int) -> bool:
        content = {"pid": os.getpid(), "claimed_at": time.time()}
        return create_bytes(claim_file(directory, restart), json_bytes(content))

    def _outcome(self, exit_code: int) -> Literal["completed", "error", "terminated"]:
        if exit_code == 0:
            return "completed"
        return "terminated" if self._stop_cause or -exit_code in _SENT_BY_OTHERS else "error"

    def _run(self, log: BinaryIO) -> int:
        if self.time_limit_seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, max(self.time_limit_seconds, 0.001))
        if self._is_stopped():
            return -int(signal.SIGTERM)
        try:
            self._child = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self._trainer_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        except (OSError, ValueError) as error:
            log.write(f"[phase job] cannot start {self.command[:1]}: {error}\n".encode())
            return NOT_EXECUTABLE if isinstance(error, PermissionError) else NOT_FOUND
        if self._is_stopped():
            self._child.terminate()
        return self._child.wait()

    def _is_stopped(self) -> bool:
        """Signal handlers set it between any two lines."""
        return bool(self._stop_cause)

    def _trainer_environment(self) -> dict[str, str]:
        environment = scrubbed(os.environ)
        environment[JOB_VARIABLE] = self.folder
        environment[ATTEMPT_VARIABLE], environment[RESTART_VARIABLE] = str(self.attempt), str(restart_count())
        environment["PYTHONUNBUFFERED"] = "1"
        if not self.gpus:
            environment.update({key: str(self.devices) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
        if self.gpu_ids is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpu_ids)
        return {**environment, **self.environment}

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if not self._stop_cause:
            self._stop(signal.Signals(number).name)

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        if not self._stop_cause:
            self._stop("time limit")
        elif self._child is not None:
            self._child.kill()

    def _stop(self, cause: str) -> None:
        self._stop_cause = cause
        if self._child is not None:
            self._child.terminate()
        # Interval: a command that is started between two alarms is killed by the next.
        seconds = max(self.grace_seconds, 0.001)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


def read_claim(directory: Path) -> dict[str, float]:
    """Pid and claim time of the newest process that claimed the attempt; empty while there is none."""
    claims = [path for path in directory.glob("claim*") if path.name == "claim" or path.name[6:].isdigit()]
    newest = max(claims, key=lambda path: int(path.name[6:] or 0), default=None)
    if newest is not None:
        with contextlib.suppress(OSError, ValueError):
            content: dict[str, float] = json.loads(newest.read_text(encoding="utf-8"))
            return content
    return {}
