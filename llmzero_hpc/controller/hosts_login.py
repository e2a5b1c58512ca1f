"""The controller on a login node: a process that outlives the shell which started it."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from llmzero_hpc.errors import ControllerError, LLMZeroError
from llmzero_hpc.store.atomic import refusals
from llmzero_hpc.store.daemon_file import read_heartbeat
from llmzero_hpc.store.process import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory

_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 600.0


def log_file(directory: SearchDirectory) -> Path:
    """What a controller without a terminal prints."""
    return directory.root / "controller.log"


def detach(
    directory: SearchDirectory, *, take_over: bool = False, progress: Callable[[float], None] = lambda _: None
) -> int:
    """Start a controller of its own session, and return its pid after its first heartbeat.

    Raises:
        LLMZeroError: it ended before that: its own error.
        ControllerError: it ended without a word, or has not ticked within ten minutes.
        StorageError: its log cannot be written.
    """
    log = log_file(directory)
    command = [sys.executable, "-m", "llmzero_hpc.cli.main", "drive", str(directory.root)]
    with refusals("writing", log), log.open("ab") as stream:
        begin = stream.tell()
        process = subprocess.Popen(
            [*command, *(["--take-over"] if take_over else [])],
            cwd=directory.root,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    begun = time.monotonic()
    while not _beats(directory, process.pid):
        if process.poll() is not None and not _beats(directory, process.pid):
            raise _why_it_ended(log, begin, process.returncode)
        if time.monotonic() - begun > _PATIENCE_SECONDS:
            raise ControllerError(
                f"the controller (pid {process.pid}) has not made its first tick within {_PATIENCE_SECONDS:.0f} s",
                f"it goes on; see {log}",
            )
        progress(time.monotonic() - begun)
        time.sleep(_POLL_SECONDS)
    return process.pid


def _beats(directory: SearchDirectory, pid: int) -> bool:
    heartbeat = read_heartbeat(directory)
    return heartbeat is not None and (heartbeat.pid, heartbeat.boot_id) == (pid, boot_id())


def _why_it_ended(log: Path, begin: int, code: int) -> LLMZeroError:
    """The error that the controller printed, as if it had been met here."""
    lines = log.read_bytes()[begin:].decode(errors="replace").splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not errors:
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return ControllerError(f"the controller ended {how} before its first tick", f"see {log}")
    message = lines[errors[-1]].removeprefix("error: ")
    following = lines[errors[-1] + 1 : errors[-1] + 2]
    next_step = following[0].removeprefix("  next: ") if following and following[0].startswith("  next: ") else ""
    kinds = {kind.exit_code: kind for kind in LLMZeroError.__subclasses__()}
    return kinds.get(code, ControllerError)(message, next_step)
