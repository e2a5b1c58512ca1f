"""VeRL's own log of metrics, `{"step": 3, "data": {...}}` in each line, read while it grows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.store.atomic import refusals
from llmzero_hpc.trainers.verl.metrics import raw_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a step of VeRL's count, 0 before the first, and its numbers under VeRL's names."""

    step: int
    raw: dict[str, float]


class LogReader:
    """Reads the lines that were appended since the last look; a torn last one waits for its end."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new_lines(self) -> list[Line]:
        """Lines since the last call; none while the file is not there. What is no such line is skipped.

        Raises:
            StorageError: the file cannot be read.
        """
        with refusals("reading", self._path):
            try:
                with self._path.open("rb") as stream:
                    stream.seek(self._offset)
                    data = stream.read()
            except FileNotFoundError:
                return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [line for text in complete.splitlines() if (line := _parsed(text))]


def continued(logs: Iterable[Path]) -> dict[int, Line]:
    """The lines that count of several runs, given one after the other, by step: a run voids what came after its start.

    Raises:
        StorageError: a file cannot be read.
    """
    kept: dict[int, Line] = {}
    for log in logs:
        for line in LogReader(log).new_lines():
            kept = {step: earlier for step, earlier in kept.items() if step < line.step}
            kept[line.step] = line
    return kept


def _parsed(text: bytes) -> Line | None:
    try:
        found = json.loads(text)
        step, data = found["step"], found["data"]
        return Line(step, raw_metrics(data)) if type(step) is int else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
