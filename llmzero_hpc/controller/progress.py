"""What the files of phases show: metric rows as they come in, complete checkpoints, the end of a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.search.metrics import Series
from llmzero_hpc.store.marker import read_marker
from llmzero_hpc.store.metrics_log import MetricsReader, read_series
from llmzero_hpc.trainers.checkpoints import complete_checkpoints

if TYPE_CHECKING:
    from llmzero_hpc.search.metrics import MetricRow
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.store.marker import Marker
    from llmzero_hpc.store.search_directory import SearchDirectory

_LOG_BYTES = 16_384


class Progress:
    """Reads active nodes' metrics by offset and keeps their rows; those of final nodes are read when asked for."""

    def __init__(self, directory: SearchDirectory) -> None:
        self._directory = directory
        self._readers: dict[tuple[int, int], MetricsReader] = {}
        self._rows: dict[int, dict[int, list[MetricRow]]] = {}

    def observe(self, node: Node) -> tuple[Series, tuple[int, ...]]:
        """The series of an active node, and its complete checkpoints."""
        folder = self._directory.phase(node.id)
        rows = self._rows.setdefault(node.id, {})
        for attempt in node.attempts:
            key = (node.id, attempt.number)
            if key not in self._readers:
                self._readers[key] = MetricsReader(folder.attempt(attempt.number).metrics)
            rows.setdefault(attempt.number, []).extend(self._readers[key].new_rows())
        return self._series(node.id), complete_checkpoints(folder.checkpoints)

    def _series(self, node_id: int) -> Series:
        """By attempt, not by arrival: one that was given up may still write beside the next."""
        return Series.continued(row for _, rows in sorted(self._rows[node_id].items()) for row in rows)

    def forget(self, node_id: int) -> None:
        """Let go of a node that became final."""
        self._rows.pop(node_id, None)
        for key in [key for key in self._readers if key[0] == node_id]:
            del self._readers[key]

    def series(self, node: Node) -> Series:
        """The rows of a node that count: until its stop decision, if there is one."""
        if node.id in self._rows:
            series = self._series(node.id)
        else:
            folder = self._directory.phase(node.id)
            series = read_series([folder.attempt(attempt.number).metrics for attempt in node.attempts])
        return series if node.stop is None else series.up_to(node.stop.step)

    def marker(self, node_id: int | None) -> Marker | None:
        """What the job of a node's newest attempt said of its end."""
        attempts = [] if node_id is None else self._directory.phase(node_id).attempts()
        return read_marker(attempts[-1]) if attempts else None

    def log_tail(self, node_id: int | None) -> str:
        """The end of the trainer's log of a node's newest attempt."""
        if node_id is None:
            return ""
        attempts = self._directory.phase(node_id).attempts()
        if not attempts:
            return ""
        try:
            with attempts[-1].trainer_log.open("rb") as log:
                log.seek(0, 2)
                log.seek(max(0, log.tell() - _LOG_BYTES))
                return log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
