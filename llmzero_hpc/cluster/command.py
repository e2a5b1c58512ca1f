"""One command inside a job: run to its end, or ended on request by SIGTERM and, after a grace, SIGKILL."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a shell for a command that cannot be started."""
TIME_LIMIT = "time limit"
"""Cause of a stop."""


@contextmanager
def announcements_kept() -> Iterator[None]:
    """Processes that are started in here do not get SIGUSR2.

    Slurm may send it to every process of a job, although it is for the phase job alone; most would die of it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})


class Command:
    """The trainer's command, run at most once. Belongs to the main thread, whose SIGALRM it takes.

    `stop` may be called at any time, from signal handlers and other threads too, also before `run`.
    """

    def __init__(self, grace_seconds: float) -> None:
        self.stop_cause = ""
        """Why it was asked to end, at first; empty while nobody has."""
        self._grace_seconds = max(grace_seconds, 0.001)
        self._child: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGALRM, self._on_alarm)

    def is_stopped(self) -> bool:
        """Whether it was asked to end: signal handlers and threads do that between any two lines."""
        return bool(self.stop_cause)

    def run(
        self,
        arguments: Sequence[str],
        directory: str,
        environment: Mapping[str, str],
        log: IO[bytes],
        limit_seconds: float | None,
    ) -> int:
        """The exit code, negative for a signal; a shell's where it cannot be started."""
        if limit_seconds is not None and not self.is_stopped():
            signal.setitimer(signal.ITIMER_REAL, max(limit_seconds, 0.001))
        if self.is_stopped():
            return -int(signal.SIGTERM)
        try:
            with announcements_kept():
                self._child = subprocess.Popen(
                    arguments,
                    cwd=directory,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        except (OSError, ValueError) as error:
            log.write(f"[phase job] cannot start {arguments[:1]}: {error}\n".encode())
            return NOT_EXECUTABLE if isinstance(error, PermissionError) else NOT_FOUND
        if self.is_stopped():
            self._child.kill()  # before its first line
        try:
            return self._child.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def stop(self, cause: str) -> None:
        """Ask for its end; a second call changes nothing."""
        if self.stop_cause:
            return
        self.stop_cause = cause
        if self._child is not None:
            self._child.terminate()
        # Interval: a command that is started between two alarms is killed by the next.
        signal.setitimer(signal.ITIMER_REAL, self._grace_seconds, self._grace_seconds)

    def kill(self, cause: str) -> None:
        """End it without a grace: what it would still write is not wanted."""
        self.stop_cause = self.stop_cause or cause
        if self._child is not None:
            self._child.kill()

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        if not self.stop_cause:
            self.stop(TIME_LIMIT)
        elif self._child is not None:
            self._child.kill()
