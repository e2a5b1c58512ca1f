# ruff: noqa: RUF001 - an en dash is what people read
"""Everything of one phase, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.report import words
from llmzero_hpc.report.terminal_parts import author_of, curves, field, hanging, portable, simulated

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from llmzero_hpc.report.data import AttemptReport, NodeReport, ReportData


def show_view(data: ReportData, node_id: int, log_path: Path | None = None) -> RenderableType:
    """Everything of one phase. Raises IndexError for a phase that is not there."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    if node_id < 0:
        raise IndexError(node_id)
    node = data.nodes[node_id]
    lines: list[RenderableType] = [simulated()] if data.simulated else []
    head = Text(f"Phase {node.id}", style="bold")
    head.append(f"  {node.kind.value}{_origin(node)}", style="")
    lines.append(head)
    lines += [field(name, value) for name, value in _facts(data, node) if value]
    if node.diagnosis or node.author:
        lines += ["", Text("Why", style="bold"), Padding(Text(node.diagnosis or "–"), (0, 0, 0, 2))]
        lines += [Padding(Text(f"- {item}"), (0, 0, 0, 4)) for item in node.evidence]
        lines.append(Padding(Text(f"proposed by {author_of(node.author, node.rule)}", style="dim"), (0, 0, 0, 2)))
    if node.configuration is not None:
        lines += ["", Text("Configuration", style="bold") + Text("  (* changed)" if node.changes else "", style="dim")]
        lines += _configuration(node)
    if node.checkpoints:
        lines += ["", Text("Checkpoints", style="bold")]
        for point in node.checkpoints:
            mark = "★" if point.step == node.best_step else " "
            lines.append(
                Text(f"  {mark} step {point.step:<6} {words.score(point.score)}", style="bold" if mark == "★" else "")
            )
    if node.attempts:
        lines += ["", Text("Attempts", style="bold")]
        lines += [hanging(Text(f"  {attempt.number}  "), Text(_attempt(attempt))) for attempt in node.attempts]
    if drawn := curves(data, node):
        lines += ["", *drawn]
    if log_path is not None:
        lines += ["", field("log", str(log_path))]
    return portable(Group(*lines))


def _attempt(attempt: AttemptReport) -> str:
    job = f"job {attempt.job_id}" if attempt.job_id else "no job"
    where = f" on {attempt.hosts}" if attempt.hosts else ""
    parts = [f"{job}{where}: {attempt.ending.replace('_', ' ') if attempt.ending else 'not over'}"]
    if attempt.exit_code is not None:
        parts.append(f"exit code {attempt.exit_code}")
    if attempt.restarts:
        parts.append("restarted once" if attempt.restarts == 1 else f"restarted {attempt.restarts} times")
    # the times of a job that was restarted are those of its last run
    elif attempt.submitted_at is not None and attempt.started_at is not None:
        parts.append(f"queued for {words.duration(attempt.started_at - attempt.submitted_at)}")
    if attempt.started_at is not None and attempt.ended_at is not None:
        parts.append(f"ran for {words.duration(attempt.ended_at - attempt.started_at)}")
    accounted = " (as the cluster accounts for it)" if attempt.accounted else ""
    return ", ".join(parts) + f"; {words.duration(attempt.device_seconds)} of device time{accounted}"


def _origin(node: NodeReport) -> str:
    parts = [] if node.resume_node is None else [f"from phase {node.resume_node}, step {node.resume_step}"]
    if node.repairs is not None:
        parts.append(f"repairs phase {node.repairs}")
    return f" ({'; '.join(parts)})" if parts else ""


def _facts(data: ReportData, node: NodeReport) -> list[tuple[str, str]]:
    planned = f" of {node.steps_planned}" if node.steps_planned is not None else ""
    best = f"{words.score(node.score)} at step {node.best_step}" if node.score is not None else "no score yet"
    pruned = ", pruned" if node.pruned else ""
    return [
        ("status", f"{words.STATUS_SYMBOLS[node.status]} {words.STATUS_WORDS[node.status]}{pruned}"),
        ("score", best + (", on the best strategy" if node.on_best_path else "")),
        ("steps", f"{node.steps_done}{planned}, first step {node.first_step} of its strategy"),
        ("cost", f"{words.duration(node.device_seconds)} of device time ({data.device_unit})"),
        ("stopped", node.stop_reason + (f" ({author_of(node.stop_author, '')})" if node.stop_reason else "")),
        ("problem", node.problem),
    ]


def _configuration(node: NodeReport) -> list[RenderableType]:
    from rich.text import Text

    before = {change.name: change.before for change in node.changes}
    lines: list[RenderableType] = []
    for name, value in (node.configuration or {}).items():
        changed = name in before
        text = Text(f"  {'*' if changed else ' '} {name:<24} {words.number(value)}", style="bold" if changed else "")
        if changed:
            text.append(f"  (was {words.number(before[name])} in phase {node.compared_with})", style="dim")
        lines.append(text)
    return lines
