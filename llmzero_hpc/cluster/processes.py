"""The live processes of jobs on this machine, recognised by a variable that every descendant inherits."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import psutil

JOB_VARIABLE = "LLMZERO_JOB"
"""Holds the job's name in the environment of each of its processes: exact, and inherited by all that they start."""


def processes_of(names: Collection[str]) -> dict[str, list[psutil.Process]]:
    """The live processes of each named job, in one scan; jobs without any are left out.

    Zombies have ended and are not among them. A process carries its creation time, and psutil refuses to signal
    another that got the same pid.
    """
    import psutil

    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            name = _job_of(process, names)
            if name is not None and process.status() != psutil.STATUS_ZOMBIE:
                found.setdefault(name, []).append(process)
    return found


def _job_of(process: psutil.Process, names: Collection[str]) -> str | None:
    import psutil

    try:
        name = process.environ().get(JOB_VARIABLE)
    except psutil.AccessDenied:
        # Other users' processes, and some systems that hide the environment of their own programs.
        try:
            command = process.cmdline()
        except psutil.AccessDenied:
            return None
        return next((name for name in names if stands_in(name, command)), None)
    except OSError:
        return None
    return name if name in names else None


def stands_in(name: str, command: Iterable[str]) -> bool:
    """Whether a command line holds a path with the folder of that job: `.../submission/<name>`."""
    for argument in command:
        parts = PurePath(argument).parts
        if any(pair == ("submission", name) for pair in itertools.pairwise(parts)):
            return True
    return False


def with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """These processes and all that they started, whatever environment those were given."""
    import psutil

    found: dict[psutil.Process, None] = {}
    for process in processes:
        found.setdefault(process)
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found.update(dict.fromkeys(process.children(recursive=True)))
    return list(found)


def kill_stragglers(name: str) -> int:
    """Kill what a job has left behind: its processes other than the caller and the caller's ancestors; how many."""
    import psutil

    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    killed = 0
    for process in processes_of({name}).get(name, []):
        if process.pid not in spared:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process.kill()
                killed += 1
    return killed
