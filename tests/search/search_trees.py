"""Short ways to write a tree down."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.search.growth import settle
from llmzero_hpc.search.node import Checkpoint, CheckpointReference, Node, NodeStatus, TransitionKind
from llmzero_hpc.search.tree import Tree

if TYPE_CHECKING:
    from llmzero_hpc.search.selection import Expansion

SCRATCH, EVOLVE, DEBUG = TransitionKind.SCRATCH, TransitionKind.EVOLVE, TransitionKind.DEBUG
RUNNING, COMPLETED, STOPPED = NodeStatus.RUNNING, NodeStatus.COMPLETED, NodeStatus.EARLY_STOPPED
FAILED, CANCELLED = NodeStatus.FAILED, NodeStatus.CANCELLED


def node(
    node_id: int,
    parent: int | None,
    score: float | None = None,
    *,
    status: NodeStatus = COMPLETED,
    kind: TransitionKind | None = None,
    repairs: int | None = None,
    pruned: bool = False,
) -> Node:
    """A phase of ten steps; the kind is guessed where it is clear."""
    if kind is None:
        kind = SCRATCH if parent is None else DEBUG if repairs is not None else EVOLVE
    return Node(
        id=node_id,
        kind=kind,
        parent=parent,
        seed=0,
        created_at=0.0,
        status=status,
        repairs=repairs,
        checkpoints=() if score is None else (Checkpoint(10, score),),
        pruned=pruned,
    )


def tree(*nodes: Node) -> Tree:
    """Nodes as they are, ids checked."""
    result = Tree()
    for item in nodes:
        result = result.adding(item)
    return result


def begun(before: Tree, expansion: Expansion, resume: CheckpointReference | None = None) -> Tree:
    """What a controller does with a decision: one more running node."""
    return before.adding(
        Node(
            id=len(before),
            kind=expansion.kind,
            parent=expansion.parent,
            seed=0,
            created_at=0.0,
            status=RUNNING,
            repairs=expansion.repairs,
            resume=resume,
        )
    )


def ended(before: Tree, node_id: int, status: NodeStatus, score: float | None) -> Tree:
    """What a controller does with an outcome."""
    points = () if score is None else (Checkpoint(before[node_id].first_step + 9, score),)
    return settle(before, replace(before[node_id], status=status, checkpoints=points))
