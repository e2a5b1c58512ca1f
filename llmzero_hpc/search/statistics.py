"""What each subtree has shown so far, counted from the tree when it is needed and stored nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from llmzero_hpc.search.tree import Tree


@dataclass(frozen=True, slots=True)
class SubtreeStatistics:
    """Counts over a node and all its descendants (equation 8; the names in brackets are the paper's).

    The counts overlap: an early-stopped or failed run with a validation score is also a validated one. Runs that a
    person took out before they scored are in none of them (`Node.counts`).
    """

    total: int = 0
    """Final runs [v_total]."""
    validated: int = 0
    """Final runs with a validation score [v_val]."""
    failed: int = 0
    """[v_fail]"""
    early_stopped: int = 0
    """[v_early]"""
    score_sum: float = 0.0
    """Sum of the raw scores of the validated runs."""
    in_flight: int = 0
    """Active runs. They count as visits, never in the value of a subtree (WU-UCT, Liu et al. 2020)."""

    @property
    def visits(self) -> int:
        """Runs begun in this subtree: N of equations 5 and 6. One phase at a time, it equals `total`."""
        return self.total + self.in_flight

    @property
    def mean_score(self) -> float | None:
        """Mean raw score of the validated runs; None without any."""
        return self.score_sum / self.validated if self.validated else None


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """Lowest and highest score of all final nodes [s_min, s_max]; both 0 before the first score."""

    lowest: float = 0.0
    highest: float = 0.0


@dataclass(frozen=True, slots=True)
class TreeStatistics:
    """One look over a whole tree: who hangs where, and what the subtrees have shown. Indexed by node id."""

    subtrees: tuple[SubtreeStatistics, ...]
    children: tuple[tuple[int, ...], ...]
    """Ids of the children, ascending."""
    roots: tuple[int, ...]
    """Nodes without a parent, ascending: node 0, and the repair of a root that failed."""
    scores: ScoreRange


def survey(tree: Tree) -> TreeStatistics:
    """Count the whole tree in time linear in its size.

    A parent is always older than its child, and a repaired node moves only to a still older parent. So ascending ids
    meet each parent before its children, and descending ids each child before its parent.
    """
    children: list[list[int]] = [[] for _ in tree]
    roots: list[int] = []
    for node in tree:
        (roots if node.parent is None else children[node.parent]).append(node.id)

    subtrees = [SubtreeStatistics()] * len(tree)
    for node in reversed(tree.nodes):
        below = [subtrees[child] for child in children[node.id]]
        score = node.score if node.counts else None
        subtrees[node.id] = SubtreeStatistics(
            total=node.counts + sum(child.total for child in below),
            validated=(score is not None) + sum(child.validated for child in below),
            failed=(node.status is NodeStatus.FAILED) + sum(child.failed for child in below),
            early_stopped=(node.status is NodeStatus.EARLY_STOPPED) + sum(child.early_stopped for child in below),
            score_sum=(score or 0.0) + sum(child.score_sum for child in below),
            in_flight=node.is_active + sum(child.in_flight for child in below),
        )

    scores = [score for node in tree if node.counts and (score := node.score) is not None]
    return TreeStatistics(
        subtrees=tuple(subtrees),
        children=tuple(map(tuple, children)),
        roots=tuple(roots),
        scores=ScoreRange(min(scores), max(scores)) if scores else ScoreRange(),
    )
