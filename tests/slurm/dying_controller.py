"""Controllers as processes of their own that are killed, at random or at a certain durable step."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any

from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from pathlib import Path

PATIENCE_SECONDS = 400

# a server that has imported the controller once, so that a start costs a fork
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["llmzero_hpc.controller.daemon", "llmzero_hpc.agents.playbook", "psutil"])


def start(root: Path, kill_at: int | None = None, counted: Any = None) -> BaseProcess:
    """A controller; killed at its n-th durable step if asked to, or counting its steps in `counted`."""
    process = _processes.Process(target=_control, args=(root, dict(os.environ), kill_at, counted))
    process.start()
    return process


def finish(root: Path) -> None:
    """Drive a search to its end."""
    process = start(root)
    process.join(PATIENCE_SECONDS)
    assert process.exitcode == 0, f"the controller ended with {process.exitcode}"


def count_steps(root: Path) -> int:
    """Drive a search to its end; how many durable steps its controller made."""
    counted = _processes.Value("i", 0)
    process = start(root, None, counted)
    process.join(PATIENCE_SECONDS)
    assert process.exitcode == 0, f"the controller ended with {process.exitcode}"
    return int(counted.value)


def _control(root: Path, environment: dict[str, str], kill_at: int | None, counted: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)  # the server's are those of the first test
    if kill_at is not None or counted is not None:
        _count_durable_steps(kill_at, counted)
    from llmzero_hpc.controller.daemon import Daemon

    with Daemon(SearchDirectory.open(root)) as daemon:
        daemon.loop()


def _count_durable_steps(kill_at: int | None, counted: Any) -> None:
    """Before and after each call that changes what a crash would leave behind, in this search and outside it."""
    import subprocess

    seen = 0

    def step() -> None:
        nonlocal seen
        seen += 1
        if counted is not None:
            counted.value = seen
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keywords: Any) -> Any:
            paths = [os.fspath(argument) for argument in args if isinstance(argument, str | os.PathLike)]
            decides = not any("daemon.json" in str(path) for path in paths)  # the heartbeat changes no result
            if decides:
                step()
            result = call(*args, **keywords)
            if decides:
                step()
            return result

        return wrapped

    for name in ("replace", "link", "unlink", "rename", "mkdir"):
        setattr(os, name, around(getattr(os, name)))
    subprocess.Popen.__init__ = around(subprocess.Popen.__init__)  # type: ignore[method-assign]
