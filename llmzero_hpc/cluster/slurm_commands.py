"""Slurm's commands: each within its time, counted, and left alone for a while after Slurm has not answered."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmzero_hpc.cluster.job_environment import scrubbed
from llmzero_hpc.errors import ClusterError, MissingDependencyError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "srun")
"""Without these there is no Slurm here."""

Daemon = Literal["slurmctld", "slurmdbd"]

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 300.0
_OPTIONS_OF_USERS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SLURM_TIME_FORMAT")
_NO_ANSWER = re.compile(
    "unable to contact|timed out|no answer|zero bytes|connection (?:refused|reset|failure)|connect failure|"
    "transport endpoint|missing socket|communication shutdown|message (?:send|receive)|backup controller|"
    "authenticat|credential|munge|temporarily|interrupted",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"^(?:(?:sbatch|squeue|sacct|scancel|srun): )?(?:(?:slurm_load_jobs )?(?:error|fatal): )?")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed and how it exited."""

    exit_code: int
    output: str
    complaint: str
    """What went to stderr, in one line, without the names of those who say it."""


@dataclass(slots=True)
class _Outage:
    failures: int = 0
    silent_until: float = 0.0
    words: str = ""


class SlurmCommands:
    """Runs Slurm's commands. After a failure of a daemon it is left alone, for longer each time, up to five minutes.

    `calls` counts them; `clock` is monotonic, in seconds.
    """

    def __init__(
        self, calls: Counter[str], timeout_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        missing = [name for name in COMMANDS if shutil.which(name) is None]
        if missing:
            raise MissingDependencyError(
                f"this machine has no Slurm: {', '.join(missing)} not found",
                "work on a login node of the cluster, or choose cluster.kind: local",
            )
        self._calls = calls
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._outages: dict[Daemon, _Outage] = {"slurmctld": _Outage(), "slurmdbd": _Outage()}

    def ask(self, daemon: Daemon, *command: str) -> str:
        """The output of a command.

        Raises:
            ClusterError: it failed, took too long, or its daemon is being left alone; in Slurm's words.
        """
        self.check(daemon)
        answer = self.run(*command)
        if answer.exit_code:
            raise self.failed(daemon, answer.complaint or f"{command[0]} exited with code {answer.exit_code}")
        self._outages[daemon] = _Outage()
        return answer.output

    def run(self, *command: str, text: str | None = None, slurm_times: bool = True) -> Answer:
        """Run a command to its end, or to the timeout, whose exit code is 124. `text` is its input.

        Raises:
            ClusterError: it cannot be started.
        """
        self._calls[command[0]] += 1
        environment = {"SLURM_TIME_FORMAT": "%s"} if slurm_times else {}
        try:
            process = subprocess.Popen(
                command,
                env=_environment() | environment,
                stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise ClusterError(f"{command[0]} cannot be started: {error.strerror}") from error
        with process:
            try:
                output, complaint = process.communicate(text, self._timeout_seconds)
            except subprocess.TimeoutExpired:
                _kill_group(process.pid)
                return Answer(TIMED_OUT, "", f"{command[0]} gave no answer within {self._timeout_seconds:g} s")
            except BaseException:
                _kill_group(process.pid)
                raise
        return Answer(process.returncode, output, one_line(complaint))

    def check(self, daemon: Daemon) -> None:
        """Does nothing while a daemon may be asked.

        Raises:
            ClusterError: it has failed lately, and its next turn has not come.
        """
        outage = self._outages[daemon]
        left = outage.silent_until - self._clock()
        if left > 0:
            raise ClusterError(f"{daemon}: {outage.words} (asked again in {left:.0f} s)")

    def failed(self, daemon: Daemon, words: str) -> ClusterError:
        """The error for a failure, from which the daemon is left alone for a while."""
        outage = self._outages[daemon]
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**outage.failures)
        self._outages[daemon] = _Outage(min(outage.failures + 1, 16), self._clock() + pause, words)
        return ClusterError(f"{daemon}: {words}")


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended in between
        os.killpg(leader, signal.SIGKILL)


TIMED_OUT = 124
"""Exit code of a command that took too long, as timeout(1) has it."""


def one_line(text: str) -> str:
    """Slurm's complaints as one line, each once."""
    lines = (_SPEAKER.sub("", line.strip()) for line in text.splitlines())
    return "; ".join(dict.fromkeys(line for line in lines if line))


def is_silence(complaint: str) -> bool:
    """Whether a complaint says that Slurm could not be heard, and so nothing of what it did."""
    return _NO_ANSWER.search(complaint) is not None


def _environment() -> dict[str, str]:
    """The controller's own, without what would change the meaning of a command."""
    return {key: value for key, value in scrubbed(os.environ).items() if not key.startswith(_OPTIONS_OF_USERS)}
