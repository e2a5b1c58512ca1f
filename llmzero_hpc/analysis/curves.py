"""Compute against score: the best validation score that a search had for what it had spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.search.strategy import path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree

Cost = Callable[["Node"], float]
"""What a whole phase cost, in any unit. `measured` takes the clock's word; a model of the cost repeats exactly."""


@dataclass(frozen=True, slots=True)
class Point:
    """The best validation score, from a cost on until the next point."""

    cost: float
    score: float


def measured(node: Node) -> float:
    """Device-seconds of all attempts of a phase, early-stopped ones included."""
    return node.device_seconds


def best_so_far(tree: Tree, cost: Cost = measured) -> tuple[Point, ...]:
    """The points at which the best score rose.

    Phases count one after the other in the order of their ids, also where they ran side by side. What a phase cost is
    spread evenly over its steps; validation and start are part of it. The test score's job is not counted.
    """
    points: list[Point] = []
    spent = 0.0
    for node in tree:
        whole = cost(node)
        steps = _steps(node)
        for checkpoint in node.checkpoints:
            if not points or checkpoint.score > points[-1].score:
                share = min(1.0, (checkpoint.step - node.first_step + 1) / steps)
                points.append(Point(spent + share * whole, checkpoint.score))
        spent += whole
    return tuple(points)


def strategy_cost(tree: Tree, node_id: int, step: int, cost: Cost = measured) -> float:
    """What the steps of a strategy cost that it uses; steps after a checkpoint that was resumed are left out."""
    return sum(
        cost(part.node) * min(1.0, (part.last_step - part.first_step + 1) / _steps(part.node))
        for part in path(tree, node_id, step)
    )


def total_cost(tree: Tree, cost: Cost = measured) -> float:
    """What all phases cost."""
    return sum(cost(node) for node in tree)


def score_at(curve: Sequence[Point], cost: float) -> float | None:
    """The best score for at most that cost; None before the first."""
    reached = [point.score for point in curve if point.cost <= cost]
    return reached[-1] if reached else None


def cost_to_reach(curve: Sequence[Point], score: float) -> float | None:
    """What it cost to have at least that score; None where it never was."""
    return next((point.cost for point in curve if point.score >= score), None)


def _steps(node: Node) -> int:
    """Steps that were paid for: all that were reported, at least those of the checkpoints."""
    last = max(node.last_step or 0, *(point.step for point in node.checkpoints), node.first_step)
    return last - node.first_step + 1
