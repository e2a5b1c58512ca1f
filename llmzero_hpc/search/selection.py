"""Where the tree grows next: from-scratch injection, then UCT with a virtual new child (section 3.2, appendix D)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from llmzero_hpc.search.node import Node, NodeStatus, TransitionKind
from llmzero_hpc.search.statistics import TreeStatistics, survey
from llmzero_hpc.search.uct import uct_of_child, uct_of_new_child

if TYPE_CHECKING:
    from llmzero_hpc.search.rules import Rules
    from llmzero_hpc.search.tree import Tree


@dataclass(frozen=True, slots=True)
class Expansion:
    """The next phase to begin: its kind and its place in the tree.

    `parent` of an evolve phase is where it resumes, of a scratch phase only where it hangs. A debug phase hangs under
    the failure that it `repairs`.

    With `Rules.single_stage` a scratch phase stands wherever an evolve phase would, and takes its place there; nothing
    is injected besides, as every phase is from scratch.
    """

    kind: TransitionKind
    parent: int
    repairs: int | None = None


class Standstill(StrEnum):
    """Why there is nothing to begin."""

    WAITING = "waiting"
    """Nothing can be expanded now; the phases in flight may change that."""
    EXHAUSTED = "exhausted"
    """Nothing can ever be expanded again, and nothing is in flight."""


def select(tree: Tree, rules: Rules) -> Expansion | Standstill:
    """The next phase to begin, decided from the tree alone; equal trees give equal decisions.

    Call it once for each free slot and add the node before the next call: active nodes take places among the children
    and count as visits, so the next decision goes elsewhere. Ties go to the older node, and against a new child.

    Raises:
        ValueError: the tree is empty; the first root is the caller's to make.
    """
    if not tree.nodes:
        raise ValueError("an empty tree has no node to expand; create node 0 first")

    # From scratch: when too few phases are, one more under the best node, whose places it does not take.
    host = max((node for node in tree if _is_host(node)), key=_score_then_age, default=None)
    from_scratch = sum(node.kind is TransitionKind.SCRATCH for node in tree)
    if not rules.single_stage and host is not None and from_scratch / len(tree) < rules.min_scratch_ratio:
        return Expansion(TransitionKind.SCRATCH, host.id)

    # Standstill: only subtrees in which something can be expanded now take part in the rest.
    statistics = survey(tree)
    is_open = _open_subtrees(tree, statistics, rules)
    open_roots = [root for root in statistics.roots if is_open[root]]
    if not open_roots:
        if host is not None and any(node.is_leaf for node in tree):
            # What strategies may cost ends them, not the search: there is always another one.
            return Expansion(TransitionKind.SCRATCH, host.id)
        return Standstill.WAITING if tree.active() else Standstill.EXHAUSTED

    # Descend: at each node a virtual new child competes with the open children. There is one open root at most: a
    # second root is the repair of the first (`growth.settle`), which is pruned then.
    node = tree[open_roots[0]]
    while True:
        here = statistics.subtrees[node.id]
        open_children = [child for child in statistics.children[node.id] if is_open[child]]
        promises = {
            child: uct_of_child(here, statistics.subtrees[child], statistics.scores, rules) for child in open_children
        }
        best_child = max(open_children, key=promises.__getitem__, default=None)
        taken = _places_taken(tree, statistics.children[node.id], rules)
        if _has_room(tree, node, taken, rules):
            new = uct_of_new_child(here, node.score, taken, statistics.scores, rules)
            if best_child is None or new > promises[best_child]:
                return _expansion(node, rules)
        assert best_child is not None  # noqa: S101 - an open node without room has an open child
        node = tree[best_child]


def is_terminal(tree: Tree, node_id: int, rules: Rules) -> bool:
    """Whether nothing can ever grow from this node or below it; `terminal_nodes` answers for a whole tree at once."""
    return node_id in terminal_nodes(tree, rules)


def terminal_nodes(tree: Tree, rules: Rules) -> frozenset[int]:
    """Nodes that can no longer produce children, and whose children are all terminal (section 3.2, subtree pruning).

    Pruned nodes; final nodes without a score; failures whose repairs are used up; nodes with all places taken by
    terminal children. An active node is not terminal, as nobody knows what becomes of it. Terminality is derived and
    not kept: a from-scratch phase that is put under a terminal node ends it.
    """
    statistics = survey(tree)
    terminal: set[int] = set()
    for node in reversed(tree.nodes):
        children = statistics.children[node.id]
        can_grow = node.is_active or _has_room(tree, node, _places_taken(tree, children, rules), rules)
        if node.pruned or (not can_grow and terminal.issuperset(children)):
            terminal.add(node.id)
    return frozenset(terminal)


def expandable_nodes(tree: Tree, rules: Rules) -> frozenset[int]:
    """Final nodes that may get a child of their own, now or later, whatever becomes of the phases in flight.

    Once a node is none of them it never is again: children that are final keep their places or hand them to a repair,
    and only those in flight may yet be cancelled and give theirs back.
    """
    statistics = survey(tree)
    return frozenset(
        node.id
        for node in tree
        if _has_room(
            tree,
            node,
            _places_taken(
                tree, tuple(child for child in statistics.children[node.id] if not tree[child].is_active), rules
            ),
            rules,
        )
    )


def _growth(node: Node) -> TransitionKind | None:
    """How a child of this node comes about: a failure is repaired, a scored phase evolves; None where nothing can.

    A repair that a person cancelled after it scored stays where it is: growing on it would be lost once another
    repair of the same failure succeeds.
    """
    if not node.is_active and not node.pruned and node.status is NodeStatus.FAILED:
        return TransitionKind.DEBUG
    return TransitionKind.EVOLVE if _is_host(node) and not node.is_leaf else None


def _is_host(node: Node) -> bool:
    """Whether a phase that starts from scratch may hang under this node."""
    is_settled = not node.is_active and not node.pruned and node.status is not NodeStatus.FAILED
    return is_settled and node.score is not None and not node.is_under_failure


def _has_room(tree: Tree, node: Node, places_taken: int, rules: Rules) -> bool:
    """Whether a child can be created now."""
    growth = _growth(node)
    if growth is TransitionKind.DEBUG:
        return places_taken < rules.max_debug_children and tree.debug_depth(node.id) < rules.max_debug_depth
    return growth is TransitionKind.EVOLVE and places_taken < rules.max_evolve_children


def _places_taken(tree: Tree, children: tuple[int, ...], rules: Rules) -> int:
    return sum(_takes_place(tree, tree[child], rules) for child in children)


def _takes_place(tree: Tree, child: Node, rules: Rules) -> bool:
    """Whether a child counts against its parent's limit [k]; active and terminal ones do.

    A repair that succeeded has the place of the failure it stands for, so the repair of an injected phase has none.
    """
    if child.pruned or (child.status is NodeStatus.CANCELLED and child.score is None):
        return False
    is_injected = tree.first_failure(child.id).kind is TransitionKind.SCRATCH and not rules.single_stage
    return child.is_under_failure or not is_injected


def _open_subtrees(tree: Tree, statistics: TreeStatistics, rules: Rules) -> list[bool]:
    """For each node, whether a child can be created now, there or below. Phase by phase that is: not terminal."""
    is_open = [False] * len(tree)
    for node in reversed(tree.nodes):
        children = statistics.children[node.id]
        is_open[node.id] = any(is_open[child] for child in children) or _has_room(
            tree, node, _places_taken(tree, children, rules), rules
        )
    return is_open


def _expansion(node: Node, rules: Rules) -> Expansion:
    if _growth(node) is TransitionKind.DEBUG:
        return Expansion(TransitionKind.DEBUG, node.id, repairs=node.id)
    return Expansion(TransitionKind.SCRATCH if rules.single_stage else TransitionKind.EVOLVE, node.id)


def _score_then_age(node: Node) -> tuple[float, int]:
    return (float("-inf") if node.score is None else node.score, -node.id)
