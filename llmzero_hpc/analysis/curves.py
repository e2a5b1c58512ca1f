"""Compute against score: the best validation score that a search had for what it had spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.search.strategy_cost import Cost, measured, steps_paid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.search.tree import Tree


@dataclass(frozen=True, slots=True)
class Point:
    """The best validation score, from a cost on until the next point."""

    cost: float
    score: float


def best_so_far(tree: Tree, cost: Cost = measured) -> tuple[Point, ...]:
    """The points at which the best score rose.

    Phases count one after the other in the order of their ids, also where they ran side by side. What a phase cost is
    spread evenly over its steps; validation and start are part of it. The test score's job is not counted.
    """
    points: list[Point] = []
    spent = 0.0
    for node in tree:
        whole = cost(node)
        steps = steps_paid(node)
        for checkpoint in node.checkpoints:
            if not points or checkpoint.score > points[-1].score:
                share = min(1.0, (checkpoint.step - node.first_step + 1) / steps)
                points.append(Point(spent + share * whole, checkpoint.score))
        spent += whole
    return tuple(points)


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
