"""What becomes of the tree when a phase ends: a repair that worked takes the place of the failure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.search.node import Node, NodeStatus, TransitionKind

if TYPE_CHECKING:
    from llmzero_hpc.search.tree import Tree


def settle(tree: Tree, node: Node) -> Tree:
    """The tree with a node that became final (section 3.2, subtree pruning). Settling it again changes nothing.

    A debug phase that completed or was early-stopped with a score is a repair that worked. It becomes a sibling of the
    first failure of its debug chain, and all that is left under that failure, itself included, is pruned: it still
    counts in the statistics, yet is never expanded again. Repairs still in flight there run to their end; one that
    works as well keeps its score, and may be the best of the search, but stays pruned where it is. `resume` and
    `repairs` never move.

    A root that failed has no siblings, so its repair becomes a root as well, kind still debug. Roots are children of
    nobody: no virtual child competes with them, and as the failed root is pruned at that moment, one root at most is
    not pruned. The search goes on below that one.

    `parent` and `pruned` of `node` are taken from the tree, so that of several nodes that end together, each built
    from the same older tree, none undoes the move or the pruning that settling another one brought.

    Raises:
        ValueError: the node is still active.
        IndexError: the node is not in the tree.
    """
    if not node.status.is_final:
        raise ValueError(f"node {node.id} is {node.status} and cannot be settled")
    place = tree[node.id]
    node = replace(node, parent=place.parent, pruned=place.pruned)
    if node.pruned or not _is_repair_that_worked(node):
        return tree.replacing(node)
    failure = tree.first_failure(node.id)
    tree = tree.replacing(replace(node, parent=failure.parent))
    return tree.replacing(*(replace(below, pruned=True) for below in _subtree(tree, failure)))


def _is_repair_that_worked(node: Node) -> bool:
    worked = node.status in {NodeStatus.COMPLETED, NodeStatus.EARLY_STOPPED} and node.score is not None
    return node.kind is TransitionKind.DEBUG and worked


def _subtree(tree: Tree, top: Node) -> list[Node]:
    """A node and all its descendants; a parent is always older than its child."""
    inside = {top.id}
    for node in tree.nodes[top.id + 1 :]:
        if node.parent in inside:
            inside.add(node.id)
    return [tree[node_id] for node_id in sorted(inside)]
