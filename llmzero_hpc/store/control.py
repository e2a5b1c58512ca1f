"""Requests to the controller from other processes on any login node: one file each under `control/`."""

from __future__ import annotations

import os
import socket
import time
from enum import StrEnum
from typing import TYPE_CHECKING

from llmzero_hpc.store.atomic import make_folder, refusals, remove, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory

_CANCEL = "cancel_"


def request_pause(directory: SearchDirectory) -> None:
    """Ask for no new phases until `clear_pause`; running ones go on. Repeating it changes nothing."""
    _request(directory, "pause")


def clear_pause(directory: SearchDirectory) -> None:
    """Let new phases start again."""
    remove(_file(directory, "pause"))


def is_paused(directory: SearchDirectory) -> bool:
    """Whether new phases are to wait."""
    path = _file(directory, "pause")
    with refusals("reading", path):
        return path.exists()


class StopRequest(StrEnum):
    """What is to end; the value is the request's file."""

    CONTROLLER = "stop"
    """The controller; jobs go on."""
    JOBS_TOO = "stop_with_jobs"
    """The controller and every job; the phases go on in new jobs when the search is started again."""


def request_stop(directory: SearchDirectory, what: StopRequest = StopRequest.CONTROLLER) -> None:
    """Ask the controller to end."""
    _request(directory, what)


def stop_request(directory: SearchDirectory) -> StopRequest | None:
    """What was asked to end, the more where both were; None where nobody asked."""
    for what in (StopRequest.JOBS_TOO, StopRequest.CONTROLLER):
        path = _file(directory, what)
        with refusals("reading", path):
            if path.exists():
                return what
    return None


def clear_stop(directory: SearchDirectory) -> None:
    """The controller ends now.

    One that starts calls it as well, so that a request which nobody served does not end the next one.
    """
    for what in StopRequest:
        remove(_file(directory, what))


def request_cancel(directory: SearchDirectory, node_id: int) -> None:
    """Ask for a node to be taken out."""
    _request(directory, f"{_CANCEL}{node_id:04d}")


def cancel_requests(directory: SearchDirectory) -> list[int]:
    """Nodes that are to be taken out, ascending, until `clear_cancel`."""
    folder = _file(directory, "")
    with refusals("reading", folder):
        try:
            names = [entry.name for entry in folder.iterdir()]
        except FileNotFoundError:
            return []
    numbers = [name.removeprefix(_CANCEL) for name in names if name.startswith(_CANCEL)]
    return sorted(int(number) for number in numbers if number.isdecimal())


def clear_cancel(directory: SearchDirectory, node_id: int) -> None:
    """The tree now carries the request."""
    remove(_file(directory, f"{_CANCEL}{node_id:04d}"))


def _file(directory: SearchDirectory, name: str) -> Path:
    return directory.root / "control" / name


def _request(directory: SearchDirectory, name: str) -> None:
    path = _file(directory, name)
    make_folder(path.parent)
    # Its being there is the request; the content tells people who made it.
    write_json(path, {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()})
