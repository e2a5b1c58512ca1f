"""Which process on which machine: enough to say for certain that one is gone, and never that a living one is."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process for ever: pids and host names are used again, boots and starts are not.

    Attributes:
        host: the machine's name.
        boot_id: of the machine's last boot; empty where the system has none.
        pid_namespace: in which `pid` counts (containers have their own); 0 where unknown.
        pid: the process.
        started: when it began, in the system's own exact unit; empty where unknown.
    """

    host: str
    boot_id: str
    pid_namespace: int
    pid: int
    started: str

    @classmethod
    def own(cls) -> Self:
        """The process that calls."""
        pid = os.getpid()
        return cls(socket.gethostname(), boot_id(), _pid_namespace(), pid, _started(pid) or "")

    def is_gone(self) -> bool:
        """Whether it has certainly ended. False for one on another machine or in another container: who knows."""
        if self.host != socket.gethostname():
            return False
        if self.boot_id != boot_id():
            return True
        if self.pid_namespace != _pid_namespace():
            return False
        started = _started(self.pid)
        return started is None or ("" not in {started, self.started} and started != self.started)


def boot_id() -> str:
    """The id of this machine's last boot; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _started(pid: int) -> str | None:
    """When a process began; None when there is none, or only its unread exit code; empty where one may not know."""
    if not Path("/proc/self/stat").exists():
        return _started_elsewhere(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return _hidden(pid)
    # In ticks since the boot: seconds since the epoch, as psutil has them, move when the clock is set.
    state, ticks = fields[0], fields[19]
    return None if state in {b"Z", b"X"} else ticks.decode()


def _hidden(pid: int) -> str | None:
    # Many login nodes hide the processes of others under /proc (hidepid), and still let one ask whether they live.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""
    return ""


def _started_elsewhere(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return ""
