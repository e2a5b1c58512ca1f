"""Which checkpoints a search may still need; all others can go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.search.node import CheckpointReference, Node, NodeStatus, TransitionKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmzero_hpc.search.methods import Method
    from llmzero_hpc.search.tree import Tree


def needed_checkpoints(
    tree: Tree, method: Method, *, best: int = 1, is_over: bool = False
) -> frozenset[CheckpointReference]:
    """The checkpoints of final nodes that something may resume, score or report; active nodes need all of theirs.

    Those are the checkpoints of nodes that may be expanded, those that phases in flight resume from or may choose from,
    the best one of each of the `best` best phases, the one that is scored on the test split, and, with each of these,
    all that led to it, so that a strategy always has its adapters. With `is_over` nothing grows any more, and the last
    two remain.

    What is not needed never will be, whatever the search does next. So it may be removed by whoever read the tree at
    any time, without a lease.
    """
    wanted = set(_reported(tree, best))
    if not is_over:
        expandable = method.expandable(tree)
        for node in tree:
            if node.id in expandable:
                wanted.update(_own(node), _resumed(node))
            elif node.is_active:
                wanted.update(_resumed(node), _choice(tree, node))
    for reference in tuple(wanted):
        wanted.update(_leading_to(tree, reference))
    return frozenset(wanted)


def _reported(tree: Tree, best: int) -> Iterator[CheckpointReference]:
    if tree.evaluation is not None:
        yield tree.evaluation.checkpoint
    # running phases may lose their score to an early stop, so they push no final one out
    ranked = sorted(tree.scored(), key=lambda node: (-(node.score or 0.0), node.id))
    for node in ranked[:best]:
        if node.best is not None:
            yield CheckpointReference(node.id, node.best.step)


def _own(node: Node) -> Iterator[CheckpointReference]:
    return (CheckpointReference(node.id, point.step) for point in node.checkpoints)


def _resumed(node: Node) -> Iterator[CheckpointReference]:
    if node.resume is not None:
        yield node.resume


def _choice(tree: Tree, node: Node) -> Iterator[CheckpointReference]:
    """What an agent may choose from for a planned node, or what is resumed where it chooses nothing."""
    source = node.repairs if node.kind is TransitionKind.DEBUG else node.parent
    if node.status is NodeStatus.PLANNED and node.kind is not TransitionKind.SCRATCH and source is not None:
        yield from _own(tree[source])
        yield from _resumed(tree[source])


def _leading_to(tree: Tree, reference: CheckpointReference) -> Iterator[CheckpointReference]:
    resume = tree[reference.node].resume
    while resume is not None:
        yield resume
        resume = tree[resume.node].resume
