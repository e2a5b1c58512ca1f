"""The command line as users have it: in this process where only words matter, else in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import polling
import psutil
import yaml

from llmzero_hpc.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

PROGRAM = (sys.executable, "-m", "llmzero_hpc.cli.main")
PATIENCE = 300.0
"""Seconds for what takes seconds: the machine may be very busy."""


@dataclass(frozen=True)
class Said:
    """What a command printed and its exit code."""

    code: int
    out: str
    err: str


class CommandLine:
    """Commands in a folder of their own, whose searches live in `state`."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> Said:
        self._capture.readouterr()
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with mock.patch.object(sys, "argv", ["llmzero-hpc", *map(str, arguments)]):
                main.main()
        except SystemExit as end:
            code = end.code
        finally:
            os.chdir(before)
        out, err = self._capture.readouterr()
        assert isinstance(code, int)
        return Said(code, out, err)

    def refused(self, *arguments: str | Path) -> Said:
        """A command that a mistake ends: one line that tells it, at most one more with what to do."""
        said = self(*arguments)
        lines = said.err.splitlines()
        assert lines, said
        assert lines[0].startswith("error: "), said
        assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("  next: ")), said
        assert "Traceback" not in said.out + said.err
        assert "pydantic" not in said.err
        assert "Input should" not in said.err
        assert "None" not in lines[0]
        assert said.code not in {0, 1}
        return said

    def write(self, file: str = "search.yaml", **settings: Any) -> Path:
        """A search.yaml of a quick rehearsal."""
        path = self.folder / file
        path.write_text(yaml.safe_dump(quick(**settings)), encoding="utf-8")
        return path


def quick(**settings: Any) -> dict[str, Any]:
    """Settings of a rehearsal that takes no time."""
    return {
        "name": "quick",
        "trainer": "rehearsal",
        "model": "builtin:chains",
        "task": {"name": "chains"},
        "configuration": {"batch_size": 64, "epochs": 2},
        "validate_every_steps": 4,
        "budget": {"iterations": 4},
        "early_stop": {"interval_seconds": 0, "first_step": 4},
        "rehearsal": {"step_seconds": 0, "failure_rate": 0},
        "live_views": False,
        "tick_seconds": 0.02,
    } | settings


def run(*arguments: str | Path, folder: Path, **options: Any) -> Said:
    """A command in a process of its own, with pipes."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def _listen_to_ctrl_c() -> None:
    """As in a terminal: where the tests run in a shell's background, programs start with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(*arguments: str | Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on meanwhile; killed at the end if it still runs."""
    process = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_listen_to_ctrl_c,  # noqa: PLW1509 - the tests start no threads
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def processes(folder: Path) -> list[psutil.Process]:
    """All that works in the folder of a test: controllers and jobs."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
    return found


def kill_all(folder: Path) -> None:
    """End what still works in the folder of a test; some of it may be ending by itself."""
    for process in processes(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The phase that a rehearsal trains in that folder makes no step meanwhile, however long that is."""
    trainers = []
    for process in processes(folder):
        with suppress(psutil.NoSuchProcess):
            if any("rehearsal.train" in word for word in process.cmdline()):
                process.suspend()
                trainers.append(process)
    assert trainers, "the phase is over already"
    try:
        yield
    finally:
        for process in trainers:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def has_ended(pid: int) -> bool:
    """Whether a process has; a zombie has, too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until it is so, or the test fails."""
    polling.until(condition, what, PATIENCE)
