"""The tree of phases: an immutable value that answers questions in the paper's words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmzero_hpc.search.node import Attempt, CheckpointReference, Node, NodeStatus, TransitionKind

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The test score of the reported strategy: one checkpoint, measured once, seen by no agent and no selection."""

    checkpoint: CheckpointReference
    split: str
    attempts: tuple[Attempt, ...] = ()
    score: float | None = None
    subtask_scores: dict[str, float] | None = None
    problem: str = ""

    @property
    def is_over(self) -> bool:
        """It has a score, or never will."""
        return self.score is not None or bool(self.problem)


@dataclass(frozen=True, slots=True)
class Tree:
    """All nodes, indexed by id, and the final evaluation. Every change returns a new tree."""

    nodes: tuple[Node, ...] = ()
    evaluation: Evaluation | None = None

    def __getitem__(self, node_id: int) -> Node:
        """The node with that id; raises IndexError for an id that is not there."""
        if node_id < 0:
            raise IndexError(node_id)
        return self.nodes[node_id]

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        """Nodes by id."""
        return iter(self.nodes)

    def children(self, node_id: int) -> tuple[Node, ...]:
        """Children by id."""
        return tuple(node for node in self.nodes if node.parent == node_id)

    def active(self) -> tuple[Node, ...]:
        """Nodes that occupy a slot."""
        return tuple(node for node in self.nodes if node.is_active)

    def scored(self) -> tuple[Node, ...]:
        """Final nodes with a validation score."""
        return tuple(node for node in self.nodes if node.status.is_final and node.score is not None)

    def best(self) -> Node | None:
        """The node with the highest validation score, running ones included; ties go to the earlier node."""
        scored = [node for node in self.nodes if node.score is not None]
        return max(scored, key=lambda node: (node.score, -node.id), default=None)

    def iterations(self) -> int:
        """Phases that count against the budget: all but those cancelled before they were ever submitted."""
        return sum(1 for n in self.nodes if n.status is not NodeStatus.CANCELLED or n.attempts)

    def adding(self, node: Node) -> Tree:
        """With one more node, whose id must be the next."""
        if node.id != len(self.nodes):
            raise ValueError(f"node {node.id} cannot follow {len(self.nodes) - 1}")
        return replace(self, nodes=(*self.nodes, node))

    def replacing(self, *nodes: Node) -> Tree:
        """With new versions of nodes that are there."""
        updated = list(self.nodes)
        for node in nodes:
            updated[self[node.id].id] = node
        return replace(self, nodes=tuple(updated))

    def device_seconds(self) -> float:
        """Cost of the whole search so far, evaluation included."""
        evaluation = self.evaluation.attempts if self.evaluation else ()
        return sum(n.device_seconds for n in self.nodes) + sum(a.device_seconds for a in evaluation)

    def debug_depth(self, node_id: int) -> int:
        """Repairs in a row that led to this node; 0 for a node that repairs nothing."""
        depth, node = 0, self[node_id]
        while node.kind is TransitionKind.DEBUG and node.repairs is not None:
            depth, node = depth + 1, self[node.repairs]
        return depth

    def first_failure(self, node_id: int) -> Node:
        """The failure at the start of this node's debug chain; the node itself where it repairs nothing."""
        node = self[node_id]
        while node.kind is TransitionKind.DEBUG and node.repairs is not None:
            node = self[node.repairs]
        return node
