"""Metrics of a phase as a growing JSONL file: the trainer appends, everybody else reads at their own pace."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.store.atomic import append_line, refusals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class MetricsWriter:
    """Appends rows of one run of the trainer. The file is opened for each row: NFS hands a row over when it is closed.

    `attempt` counts submissions from 1, `restart` the requeues of one submission from 0; readers ignore what an older
    run still writes after a newer one has begun.
    """

    def __init__(self, path: Path, attempt: int, restart: int) -> None:
        self._path = path
        self._run = {"attempt": attempt, "restart": restart}

    def write(self, step: int, values: Mapping[str, float], raw: Mapping[str, float] | None = None) -> None:
        """Append the row of a step: canonical metrics, and under their own names what the trainer reported.

        Raises:
            StorageError: the file system refused.
        """
        row = {
            **self._run,
            "step": int(step),
            "time": time.time(),
            "metrics": {name: float(value) for name, value in values.items()},
            "raw": {name: float(value) for name, value in (raw or {}).items()},
        }
        append_line(self._path, json.dumps(row))


class MetricsReader:
    """Reads the rows that were appended since the last look.

    Only complete lines count: a torn last line waits for its end. A line that is complete and yet no row is skipped
    and counted in `broken_lines`. A file that shrank or was replaced is read from its start again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._restart()

    def _restart(self) -> None:
        self._offset = 0
        self._file: tuple[int, int] | None = None
        self._newest = (0, 0)
        self.broken_lines = 0

    def new_rows(self) -> list[MetricRow]:
        """Rows since the last call, in the order they were written; none while the file is not there.

        Raises:
            StorageError: the file cannot be read.
        """
        rows = []
        for line in self._new_lines():
            parsed = _parsed(line)
            if parsed is None:
                self.broken_lines += bool(line.strip())
                continue
            run, row = parsed
            if run >= self._newest:
                self._newest = run
                rows.append(row)
        return rows

    def _new_lines(self) -> list[bytes]:
        with refusals("reading", self._path):
            try:
                stream = self._path.open("rb")
            except FileNotFoundError:
                return []
            with stream:
                status = os.fstat(stream.fileno())
                identity = (status.st_dev, status.st_ino)
                if status.st_size < self._offset or self._file not in {None, identity}:
                    self._restart()
                self._file = identity
                stream.seek(self._offset)
                data = stream.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.split(b"\n")[:-1]


def read_series(attempt_paths: Sequence[Path]) -> Series:
    """What counts of the rows of several `metrics.jsonl`, given in the order of the attempts.

    Raises:
        StorageError: a file cannot be read.
    """
    return Series.continued(row for path in attempt_paths for row in MetricsReader(path).new_rows())


def _parsed(line: bytes) -> tuple[tuple[int, int], MetricRow] | None:
    try:
        data = json.loads(line)
        run = (data["attempt"], data["restart"])
        step, metrics = data["step"], data["metrics"]
        values = {name: float(value) for name, value in metrics.items() if not isinstance(value, str | bool)}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    if any(type(number) is not int for number in (*run, step)) or len(values) != len(metrics):
        return None
    return run, MetricRow(step, values)
