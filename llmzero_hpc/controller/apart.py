"""Work in a process of its own: what it imports and allocates never weighs on the controller."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any, TypeVar

from llmzero_hpc.errors import LLMZeroError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

_Result = TypeVar("_Result")


def apart(
    call: Callable[..., _Result], *arguments: object, progress: Callable[[int, int], None] | None = None
) -> _Result:
    """What `call(*arguments)` returns, called in a new process; all of it must be picklable.

    Args:
        call: a function of a module.
        arguments: its arguments.
        progress: gets what the call reports (done, total) through the callback that it then takes as last argument.

    Raises:
        LLMZeroError: the one that the call raised.
        ChildProcessError: the process ended without a result; it has printed why.
    """
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_work, args=(theirs, call, arguments, progress is not None), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            kind, value = ours.recv()
            if kind == "result":
                result: _Result = value
                return result
            if kind == "error":
                raise value
            if progress is not None:
                progress(*value)
    except EOFError:
        process.join()
        raise ChildProcessError(f"the process for {call.__name__} ended with code {process.exitcode}") from None
    finally:
        ours.close()
        process.join()


def _work(connection: Connection, call: Callable[..., Any], arguments: tuple[object, ...], reports: bool) -> None:
    try:
        if reports:
            arguments = (*arguments, lambda done, total: connection.send(("progress", (done, total))))
        connection.send(("result", call(*arguments)))
    except LLMZeroError as error:
        connection.send(("error", error))
    except KeyboardInterrupt:
        os._exit(130)  # the parent got it too, and speaks for both
