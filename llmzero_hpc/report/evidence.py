"""What agents cited of the metrics, compared with the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.report.citations import Outcome, check, parse
from llmzero_hpc.search.metrics import MetricRow, Series

if TYPE_CHECKING:
    from llmzero_hpc.report.data import ReportData


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a proposal's evidence. `outcome` is None where it cites nothing, `actual` where there are no data."""

    text: str
    outcome: Outcome | None = None
    actual: float | None = None


def checked(data: ReportData, node_id: int) -> tuple[Line, ...]:
    """The evidence of a phase, its citations checked against the strategy that its proposer saw.

    Metrics of that strategy must be among `data.series`; where those of one of its phases are not, nothing is checked.
    """
    node = data.nodes[node_id]
    seen = node.parent if node.repairs is None else node.repairs
    series = None if seen is None else _strategy(data, seen)
    return tuple(_checked(text, series) for text in node.evidence)


def _checked(text: str, series: Series | None) -> Line:
    cited = parse(text)
    if cited is None or series is None:
        return Line(text)
    verdict = check(cited, series)
    return Line(text, verdict.outcome, verdict.actual)


def _strategy(data: ReportData, node_id: int) -> Series | None:
    """The metrics of the strategy that ends in a phase, as far as they count; None where some were not read."""
    parts: list[tuple[MetricRow, ...]] = []
    node, last = data.nodes[node_id], data.nodes[node_id].last_step
    while node.id in data.series:
        parts.append(tuple(r for r in data.series[node.id].rows if node.first_step <= r.step <= (last or 0)))
        if node.resume_node is None:
            return Series(tuple(row for part in reversed(parts) for row in part))
        node, last = data.nodes[node.resume_node], node.resume_step
    return None
