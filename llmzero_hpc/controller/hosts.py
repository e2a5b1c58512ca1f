"""Where a controller may live: a login node, a job of its own, or cron. One code, and moving loses nothing."""

from __future__ import annotations

import resource
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.sections import LocalClusterConfig
from llmzero_hpc.store import control
from llmzero_hpc.store.daemon_file import silence_seconds
from llmzero_hpc.store.lease import holder_of, silent_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.store.lease import Holder
    from llmzero_hpc.store.search_directory import SearchDirectory

_LOGIND = "systemd/logind.conf"
_LOGIND_FOLDERS = ("/usr/lib", "/run", "/etc")
"""The later ones win."""
_POLL_SECONDS = 0.1
_HOUR = 3600.0


class Host(StrEnum):
    """Where a controller lives."""

    LOGIN = "login"
    """A process on this machine that outlives its shell."""
    SLURM = "slurm"
    """A small job of its own, which requeues itself."""
    CRON = "cron"
    """Nowhere: cron or scrontab start it for one tick at a time."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A host, and why that one."""

    host: Host
    reason: str


def chosen(config: SearchConfig, *, root: Path = Path("/")) -> Choice:
    """The host for a search where nobody asked for one; `root` is where the system's settings are found."""
    if isinstance(config.cluster, LocalClusterConfig):
        return Choice(Host.LOGIN, "its phases run on this machine")
    if killer := _kills_at_logout(root):
        return Choice(Host.SLURM, f"this machine ends a user's processes at logout ({killer})")
    limits = [seconds for seconds in resource.getrlimit(resource.RLIMIT_CPU) if seconds != resource.RLIM_INFINITY]
    if limits:
        return Choice(Host.SLURM, f"this machine ends processes after {min(limits) / _HOUR:.1f} hours of CPU time")
    return Choice(Host.LOGIN, "nothing on this machine forbids it")


def living_holder(directory: SearchDirectory) -> Holder | None:
    """Who drives a search as far as this machine can know; None where certainly nobody does.

    Raises:
        StorageError: the lease cannot be read.
    """
    holder = holder_of(directory)
    return None if holder is None or holder.is_gone else holder


def is_at(holder: Holder, host: Host) -> bool:
    """Whether a living controller is where it is wanted: on this very machine, or in a job."""
    in_job = holder.job is not None
    if host is Host.LOGIN:
        return not in_job and holder.process is not None and holder.process.host == socket.gethostname()
    return host is Host.SLURM and in_job


def has_left(
    directory: SearchDirectory,
    holder: Holder,
    seconds: float,
    progress: Callable[[float], None] = lambda _: None,
) -> bool:
    """Whether a controller that was asked to stop has let go of the search, within `seconds`.

    `progress` is told now and then for how long that is being waited for.

    Raises:
        StorageError: the lease cannot be read.
    """
    begun = time.monotonic()
    while True:
        current = living_holder(directory)
        if current is None or current.token != holder.token:
            return True
        waited = time.monotonic() - begun
        if waited >= seconds:
            return False
        progress(waited)
        time.sleep(_POLL_SECONDS)


def is_made_to_leave(
    directory: SearchDirectory, holder: Holder, progress: Callable[[float], None], *, patience: float = 300.0
) -> bool:
    """Ask a controller to stop and wait for it. One that did not is not asked any longer: it goes on.

    Raises:
        StorageError: the request cannot be written.
    """
    # One that is silent already gets a moment to prove that it is there.
    silent = silent_seconds(directory, holder) > silence_seconds(directory.record.config.tick_seconds)
    control.request_stop(directory)
    if has_left(directory, holder, min(patience, 15.0) if silent else patience, progress):
        return True
    control.clear_stop(directory)
    return False


def _kills_at_logout(root: Path) -> str:
    """The file that makes systemd end a user's processes with the session, empty where none does."""
    import getpass

    settings: dict[str, tuple[str, str]] = {}
    for path in _logind_files(root):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, equals, value = line.strip().partition("=")
            if equals and not key.startswith(("#", ";")):
                settings[key.strip()] = (value.strip(), str(path))

    def words(key: str, default: str) -> list[str]:
        return settings.get(key, (default, ""))[0].split()

    value, place = settings.get("KillUserProcesses", ("no", ""))
    user = getpass.getuser()
    only = words("KillOnlyUsers", "")
    spared = user in words("KillExcludeUsers", "root") or (only and user not in only)
    return f"KillUserProcesses in {place}" if value.lower() in {"yes", "true", "on", "1"} and not spared else ""


def _logind_files(root: Path) -> list[Path]:
    """The main file, then the drop-ins by name, as systemd reads them."""
    mains = [root / folder.lstrip("/") / _LOGIND for folder in _LOGIND_FOLDERS]
    main = [path for path in mains if path.is_file()][-1:]
    drops: dict[str, Path] = {}
    for path in mains:
        drops |= {drop.name: drop for drop in sorted(path.with_name(f"{path.name}.d").glob("*.conf"))}
    return main + [drops[name] for name in sorted(drops)]
