"""What a strategy costs: the part of each of its phases that it uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmzero_hpc.search.strategy import path

if TYPE_CHECKING:
    from llmzero_hpc.search.node import CheckpointReference, Node
    from llmzero_hpc.search.tree import Tree

Cost = Callable[["Node"], float]
"""What a whole phase cost, in any unit. `measured` takes the clock's word; a model of the cost repeats exactly."""
LEAST_SHARE = 0.1
"""Share of what a strategy may cost below which one more phase is not worth its start."""


def measured(node: Node) -> float:
    """Device-seconds of all attempts of a phase, early-stopped ones included."""
    return node.device_seconds


def strategy_cost(tree: Tree, node_id: int, step: int, cost: Cost = measured) -> float:
    """What the steps of a strategy cost that it uses; steps after a checkpoint that was resumed are left out."""
    return sum(
        cost(part.node) * min(1.0, (part.last_step - part.first_step + 1) / steps_paid(part.node))
        for part in path(tree, node_id, step)
    )


def inherited_seconds(tree: Tree, resume: CheckpointReference | None) -> float:
    """Device-seconds that the strategy up to a checkpoint cost; none from scratch."""
    return 0.0 if resume is None else strategy_cost(tree, resume.node, resume.step)


def steps_paid(node: Node) -> int:
    """Steps that were paid for: all that were reported, at least those of the checkpoints."""
    last = max(node.last_step or 0, *(point.step for point in node.checkpoints), node.first_step)
    return last - node.first_step + 1
