"""What a search has cost and what of its budget is left, as views show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.report.data import BudgetLine, ProgressPoint
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.sections import SlurmClusterConfig

if TYPE_CHECKING:
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.budget import Account
    from llmzero_hpc.search.tree import Tree

_SECONDS_AN_HOUR = 3600.0


def device_unit(config: SearchConfig) -> str:
    """What compute is counted in."""
    if config.hardware.cost == "modelled":
        return "modelled CPU-hours"
    return "GPU-hours" if config.hardware.gpus else "CPU-hours"


def budget_lines(
    tree: Tree, config: SearchConfig, account: Account, *, created_at: float, now: float
) -> tuple[BudgetLine, ...]:
    """A line for iterations and compute, and one for money and the deadline where there are such limits."""
    budget = config.budget
    compute = BudgetLine(
        "compute",
        device_unit(config),
        account.device_seconds_used / _SECONDS_AN_HOUR,
        budget.device_hours,
        reserved=account.reserved_seconds / _SECONDS_AN_HOUR,
        estimated=_unconfirmed(tree) / _SECONDS_AN_HOUR if isinstance(config.cluster, SlurmClusterConfig) else 0.0,
    )
    lines = [BudgetLine("iterations", "iterations", tree.iterations(), budget.iterations), compute]
    if budget.api_dollars is not None or account.dollars_used > 0:
        lines.append(BudgetLine("money", "dollars", account.dollars_used, budget.api_dollars))
    if budget.deadline_hours is not None:
        elapsed = max(0.0, now - created_at) / _SECONDS_AN_HOUR
        lines.append(BudgetLine("deadline", "hours", elapsed, budget.deadline_hours))
    return tuple(lines)


def progress(tree: Tree) -> tuple[ProgressPoint, ...]:
    """The best score so far and what it had cost, phase by phase."""
    points: list[ProgressPoint] = []
    best: float | None = None
    seconds = 0.0
    for node in tree:
        if node.status is NodeStatus.CANCELLED and not node.attempts:
            continue
        seconds += node.device_seconds
        if node.score is not None:
            best = node.score if best is None else max(best, node.score)
        points.append(ProgressPoint(len(points) + 1, node.id, seconds / _SECONDS_AN_HOUR, node.score, best))
    return tuple(points)


def _unconfirmed(tree: Tree) -> float:
    attempts = [attempt for node in tree for attempt in node.attempts]
    attempts += tree.evaluation.attempts if tree.evaluation else ()
    return sum(attempt.device_seconds for attempt in attempts if not attempt.accounted)
