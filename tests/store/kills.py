"""Kills or stops a child process around every call to the operating system that a durable step makes."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = ("open", "write", "fsync", "close", "replace", "link", "unlink", "mkdir", "utime")
MANNERS = ("before", "torn", "after")


def killed_at_every_step(prepare: Callable[[], object], action: Callable[[], object]) -> Iterator[str]:
    """Yields after each kill: `prepare` ran here, then `action` in a child that died at the step which is named.

    `torn` is a write of which only half arrived. Ends when the action outlived its last step.
    """
    for manner in MANNERS:
        for number in count():
            prepare()
            status = in_child(lambda: _dying(action, number, manner))  # noqa: B023 - called before the next round
            if status == 0:
                break
            assert status == -signal.SIGKILL, f"the child failed at step {number}: {status}"
            yield f"{manner} step {number}"


class Sleeper:
    """A child process that stopped itself with SIGSTOP."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wake(self) -> int:
        """Let it go on to its end; its exit status."""
        os.kill(self._pid, signal.SIGCONT)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def asleep_at_every_step(action: Callable[[], object]) -> Iterator[Sleeper]:
    """Yields a child that sleeps before the first step of `action`, then one before the second, and so on.

    Ends when the action came to its end without meeting one more step.
    """
    for number in count():
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _stopping(action, number)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return
        yield Sleeper(child)


def in_child(action: Callable[[], object]) -> int:
    """Runs an action in a forked child; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_once(actions: list[Callable[[], object]]) -> list[int]:
    """Runs actions in children that start together; their exit statuses."""
    gate, opened = os.pipe()
    children = []
    for action in actions:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(opened)
                os.read(gate, 1)
                action()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(opened)
    os.close(gate)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _dying(action: Callable[[], object], at: int, manner: str) -> None:
    numbers = count()

    def met(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if manner == "torn" and name != "write":
            return real(*args, **kwargs)
        if next(numbers) != at:
            return real(*args, **kwargs)
        if manner == "torn":
            real(args[0], bytes(args[1])[: len(args[1]) // 2])
        elif manner == "after":
            # A call that fails, for a folder that is not there yet, say, is a step as well.
            with suppress(OSError):
                real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    _watch_steps(met)
    action()


def _stopping(action: Callable[[], object], at: int) -> None:
    numbers = count()

    def met(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if next(numbers) == at:
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(*args, **kwargs)

    _watch_steps(met)
    action()


def _watch_steps(met: Callable[..., Any]) -> None:
    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: met(name, real, args, kwargs)

    for name in STEPS:
        setattr(os, name, wrapped(name, getattr(os, name)))
