"""The tree in a terminal: one line a phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.report import words
from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from rich.text import Text

    from llmzero_hpc.report.data import NodeReport, ReportData

_STATUS_STYLES = {
    NodeStatus.COMPLETED: "green",
    NodeStatus.EARLY_STOPPED: "yellow",
    NodeStatus.FAILED: "red",
    NodeStatus.CANCELLED: "dim",
    NodeStatus.RUNNING: "cyan",
}
_KIND = 7
_DEEPEST = 20
_STATUS = 15
_SCORE = 7


def tree_lines(data: ReportData, height: int | None) -> list[Text]:
    """One line a phase, children below their parent; at most `height` lines.

    Where there is no room for all, the best strategy, phases in flight and the newest stay, with their ancestors.
    """
    from rich.text import Text

    kept = _kept(data, height)
    by_parent: dict[int | None, list[NodeReport]] = {}
    for node in data.nodes:
        if node.id in kept:
            by_parent.setdefault(node.parent, []).append(node)
    placed: list[tuple[str, NodeReport]] = []
    stack = [("", "", node) for node in reversed(by_parent.get(None, []))]
    while stack:
        prefix, below, node = stack.pop()
        placed.append((prefix, node))
        children = by_parent.get(node.id, [])
        last = len(children) - 1
        for index in range(last, -1, -1):
            branch, under = ("└─", "  ") if index == last else ("├─", "│ ")
            stack.append((_narrow(below) + branch, _narrow(below) + under, children[index]))
    marks = max((len(prefix) for prefix, _ in placed), default=0) + 2
    digits = max((len(str(node.id)) for _, node in placed), default=1)
    best = data.best.node if data.best else None
    lines = [_line(prefix, node, marks, digits, is_best=node.id == best) for prefix, node in placed]
    left_out = len(data.nodes) - len(placed)
    if left_out:
        lines.append(Text(f"  … {left_out} more; `llmzero-hpc tree` shows all", style="dim"))
    return lines


def _narrow(prefix: str) -> str:
    # Deep trees keep their lines inside the terminal: the outermost branches are left out.
    return prefix if len(prefix) <= _DEEPEST else "…" + prefix[-_DEEPEST + 1 :]


def _line(prefix: str, node: NodeReport, marks: int, digits: int, *, is_best: bool) -> Text:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(prefix, style="dim")
    text.append("● " if node.on_best_path else "○ ", style="bold green" if node.on_best_path else "dim")
    text.append(" " * (marks - len(prefix) - 2))
    text.append(f"{node.id:>{digits}} {node.kind.value:<{_KIND}} ", style="bold" if node.on_best_path else "")
    status = f"{words.STATUS_SYMBOLS[node.status]} {words.STATUS_WORDS[node.status]}"
    if node.status is NodeStatus.RUNNING:
        planned = f"/{node.steps_planned}" if node.steps_planned is not None else ""
        status += f" {node.steps_done}{planned}"
    text.append(f"{status:<{_STATUS}} ", style=_STATUS_STYLES.get(node.status, ""))
    text.append(f"{words.score(node.score) + (' ★' if is_best else ''):<{_SCORE}} ", style="bold" if is_best else "")
    summary = ", ".join(words.change(change.name, change.before, change.after) for change in node.changes)
    if node.repairs is not None:
        summary = f"repairs {node.repairs}: {summary}" if summary else f"repairs {node.repairs}"
    text.append(words.clipped(summary, 200), style="dim" if node.pruned else "")
    text.rstrip()
    return text


def _kept(data: ReportData, height: int | None) -> frozenset[int]:
    if height is None or len(data.nodes) <= height:
        return frozenset(node.id for node in data.nodes)
    parents = {node.id: node.parent for node in data.nodes}
    kept: set[int] = set()
    wanted = [data.best.node] if data.best else []
    wanted += [node.id for node in data.nodes if node.is_active]
    wanted += [phase.node for phase in reversed(data.strategy)]
    wanted += [node.id for node in reversed(data.nodes)]
    for node_id in wanted:
        line: list[int] = []
        current: int | None = node_id
        while current is not None and current not in kept:
            line.append(current)
            current = parents[current]
        # One line is for what was left out.
        if len(kept) + len(line) < height:
            kept.update(line)
    return frozenset(kept)
