"""The live processes of jobs on this machine, recognised by a variable that every descendant inherits."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    import psutil

JOB_VARIABLE = "LLMZERO_JOB"
"""Holds the job's folder in the environment of each of its processes: exact, and inherited by all that they start."""
RUN_VARIABLE = "LLMZERO_RUN"
"""As that, but different for each run of the job and on each of its machines, several of which may be one in truth."""

_KILL_ROUNDS = 5
"""What is being killed may start a process at the last moment."""


def job_folder(directory: Path, name: str) -> str:
    """The folder of a job's submission below its attempt: no two jobs on this machine share one."""
    return str(AttemptDirectory(directory.resolve()).submission / name)


def processes_of(folders: Collection[str]) -> dict[str, list[psutil.Process]]:
    """The live processes of each job, by the job's folder, in one scan; jobs without any are left out.

    Zombies have ended and are not among them. A process carries its creation time, and psutil refuses to signal
    another that got the same pid.
    """
    import psutil

    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            folder = _folder_of(process, folders)
            if folder is not None and process.status() != psutil.STATUS_ZOMBIE:
                found.setdefault(folder, []).append(process)
    return found


def _folder_of(process: psutil.Process, folders: Collection[str]) -> str | None:
    import psutil

    try:
        folder = process.environ().get(JOB_VARIABLE)
    except psutil.AccessDenied:
        # Other users' processes, and some systems that hide the environment of their own programs.
        try:
            command = process.cmdline()
        except psutil.AccessDenied:
            return None
        return next((folder for folder in folders if stands_in(folder, command)), None)
    except OSError:
        return None
    return folder if folder in folders else None


def stands_in(folder: str, command: Iterable[str]) -> bool:
    """Whether a command line names that folder or something in it."""
    return any(argument == folder or argument.startswith(folder + "/") for argument in command)


def with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """These processes and all that they started, whatever environment those were given."""
    import psutil

    found: dict[psutil.Process, None] = {}
    for process in processes:
        found.setdefault(process)
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found.update(dict.fromkeys(process.children(recursive=True)))
    return list(found)


def kill_stragglers(run: str) -> int:
    """Kill on this machine what one process of a job has started and left behind, by its `RUN_VARIABLE`; how many."""
    import psutil

    killed: set[psutil.Process] = set()
    for _ in range(_KILL_ROUNDS):
        # Some overwrite the environment that they were given, as Ray's workers do to show what they are about.
        left = set(with_descendants(_processes_of_run(run))) - killed
        if not left:
            break
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process.kill()
        killed |= left
    return len(killed)


def _processes_of_run(run: str) -> list[psutil.Process]:
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if process.environ().get(RUN_VARIABLE) == run and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
