"""What happened, for people: `events.jsonl`. No decision ever reads it, and losing lines of it loses nothing else."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.atomic import append_line, refusals

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory

_TOLD_ELSEWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_BLOCK = 65536


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, at `time` (seconds since the epoch), perhaps to a node."""

    time: float
    kind: str
    message: str
    node: int | None = None


def append_event(directory: SearchDirectory, now: float, kind: str, message: str, node: int | None = None) -> bool:
    """Note an event. Never pass a secret: the text is kept as it is.

    Returns:
        Whether it was written. A full or read-only disk drops it: the commit of the tree says so better.

    Raises:
        StorageError: any other refusal.
    """
    line = json.dumps({"time": now, "kind": kind, "node": node, "message": message}, ensure_ascii=False)
    try:
        append_line(_file(directory), line)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _TOLD_ELSEWHERE:
            return False
        raise
    return True


def read_events(directory: SearchDirectory, last: int | None = None) -> list[Event]:
    """Events in the order they were written, at most the `last` ones; lines that are torn or broken are left out.

    Raises:
        StorageError: the file cannot be read.
    """
    path = _file(directory)
    with refusals("reading", path):
        lines = _tail(path, last)
    events = [event for line in lines if (event := _parsed(line)) is not None]
    return events if last is None else events[max(0, len(events) - last) :]


def _file(directory: SearchDirectory) -> Path:
    return directory.root / "events.jsonl"


def _tail(path: Path, last: int | None) -> list[bytes]:
    """The lines of a file, or a few more than the last ones."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return []
    with stream:
        start = stream.seek(0, os.SEEK_END)
        data = b""
        while start > 0 and (last is None or data.count(b"\n") <= last + 1):
            size = min(_BLOCK, start)
            start = stream.seek(start - size)
            data = stream.read(size) + data
    lines = data.split(b"\n")
    return lines if start == 0 else lines[1:]


def _parsed(line: bytes) -> Event | None:
    try:
        data = json.loads(line)
        node = None if data["node"] is None else int(data["node"])
        return Event(float(data["time"]), str(data["kind"]), str(data["message"]), node)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
