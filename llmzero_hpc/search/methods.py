"""How a search grows: the paper's tree search, and the ways that it is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from llmzero_hpc.search.node import Node, NodeStatus, TransitionKind
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import Expansion, Standstill, expandable_nodes, select

if TYPE_CHECKING:
    from llmzero_hpc.search.tree import Tree


class Method(ABC):
    """What grows next. Pure: decided from the tree alone, so a search that is killed goes on as if it had not been.

    With which configuration is asked of the search's agents, as for any planned node.

    Attributes:
        leaves_choice: the agents also say what a planned phase continues, and when there are to be no more.
    """

    leaves_choice: ClassVar[bool] = False

    @abstractmethod
    def next(self, tree: Tree) -> Expansion | Standstill:
        """The next phase to begin in a tree that has its root. Called once for each free slot, as `selection.select`.

        Raises:
            ValueError: the tree is empty.
        """

    @abstractmethod
    def expandable(self, tree: Tree) -> frozenset[int]:
        """Final nodes that may be resumed, now or later; once a node is none of them it never is again."""


@dataclass(frozen=True, slots=True)
class TreeSearch(Method):
    """The search of the paper: from-scratch injection, then UCT."""

    rules: Rules

    def next(self, tree: Tree) -> Expansion | Standstill:
        """As `selection.select`."""
        return select(tree, self.rules)

    def expandable(self, tree: Tree) -> frozenset[int]:
        """As `selection.expandable_nodes`."""
        return expandable_nodes(tree, self.rules)


@dataclass(frozen=True, slots=True)
class IndependentTrials(Method):
    """Static configurations, each trained from scratch; a failure is a trial's result. None: until the budget ends."""

    limit: int | None

    def next(self, tree: Tree) -> Expansion | Standstill:
        """One more trial; all of them hang under node 0, which is the first."""
        _require_root(tree)
        if self.limit is None or len(_begun(tree)) < self.limit:
            return Expansion(TransitionKind.SCRATCH, 0)
        return _standstill(tree)

    def expandable(self, tree: Tree) -> frozenset[int]:  # noqa: ARG002 - contract
        """None: nothing is resumed."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class GreedyChain(Method):
    """The paper's search without its tree: each phase continues the best one so far, and nothing is injected.

    The newest failure is repaired first, within the limits of the rules.
    """

    rules: Rules

    def next(self, tree: Tree) -> Expansion | Standstill:
        """A repair, or a continuation of the best phase; the older of equals."""
        _require_root(tree)
        failure = self._repairable(tree)
        if failure is not None:
            return Expansion(TransitionKind.DEBUG, failure.id, repairs=failure.id)
        best = _best_to_continue(tree)
        return Expansion(TransitionKind.EVOLVE, best.id) if best is not None else _standstill(tree)

    def expandable(self, tree: Tree) -> frozenset[int]:
        """The best phase, and failures that may yet be repaired."""
        best = _best_to_continue(tree)
        failures = {node.id for node in tree if self._has_repairs_left(tree, node, in_flight=False)}
        return frozenset(failures if best is None else {best.id, *failures})

    def _repairable(self, tree: Tree) -> Node | None:
        """The newest final phase, if it failed, or the failure whose repair it was."""
        newest = next((node for node in reversed(tree.nodes) if not node.is_active and node.counts), None)
        if newest is None or newest.status is not NodeStatus.FAILED:
            return None
        node: Node | None = newest
        while node is not None and not self._has_repairs_left(tree, node, in_flight=True):
            node = None if node.repairs is None else tree[node.repairs]
        return node

    def _has_repairs_left(self, tree: Tree, node: Node, *, in_flight: bool) -> bool:
        """Whether one more repair of a failure may begin; those in flight count if asked for."""
        if node.status is not NodeStatus.FAILED or node.pruned:
            return False
        repairs = sum(one.repairs == node.id and (one.counts or (in_flight and one.is_active)) for one in tree)
        return repairs < self.rules.max_debug_children and tree.debug_depth(node.id) < self.rules.max_debug_depth


@dataclass(frozen=True, slots=True)
class OwnChoice(Method):
    """Phases one after another; the agents say of each what it continues, and end the search when they want no more."""

    leaves_choice: ClassVar[bool] = True

    def next(self, tree: Tree) -> Expansion | Standstill:
        """One more phase; what becomes of it is the agents' to say."""
        _require_root(tree)
        if tree.active():
            return Standstill.WAITING
        return Standstill.EXHAUSTED if _is_resignation(tree.nodes[-1]) else Expansion(TransitionKind.SCRATCH, 0)

    def expandable(self, tree: Tree) -> frozenset[int]:
        """Every phase with a score, until the end."""
        if tree.nodes and _is_resignation(tree.nodes[-1]):
            return frozenset()
        return frozenset(node.id for node in tree.scored())


@dataclass(frozen=True, slots=True)
class Schedule(Method):
    """One strategy, fixed before it begins: each phase resumes the last checkpoint of the one before.

    It ends early with a phase that did not complete.
    """

    phases: int

    def next(self, tree: Tree) -> Expansion | Standstill:
        """The next phase of the strategy."""
        _require_root(tree)
        begun = _begun(tree)
        if not begun:
            return Expansion(TransitionKind.SCRATCH, 0)
        if len(begun) < self.phases and _can_go_on(begun[-1]):
            return Expansion(TransitionKind.EVOLVE, begun[-1].id)
        return _standstill(tree)

    def expandable(self, tree: Tree) -> frozenset[int]:
        """The newest final phase, unless the strategy is complete or broken."""
        final = [node for node in _begun(tree) if not node.is_active]
        more = final and len(final) < self.phases and _can_go_on(final[-1])
        return frozenset({final[-1].id}) if more else frozenset()


@dataclass(frozen=True, slots=True)
class Population(Method):
    """Population-based training (Jaderberg et al. 2017), generation by generation, with truncation selection.

    A generation begins when the one before has ended. Its worst quarter, and whoever did not complete, is replaced by
    the best ones: those are resumed once more. So the first child of a node is that member itself, and each later one
    is a copy, to be perturbed. No end of its own.
    """

    size: int

    def next(self, tree: Tree) -> Expansion | Standstill:
        """One more member of the present generation, or the first of the next."""
        _require_root(tree)
        generations = self._generations(tree)
        present = generations[-1]
        if len(generations) == 1:
            if len(present) < self.size:
                return Expansion(TransitionKind.SCRATCH, 0)
        else:
            taken = Counter(node.parent for node in present)
            for source in self._sources(generations[-2]):
                if not taken[source]:
                    return Expansion(TransitionKind.EVOLVE, source)
                taken[source] -= 1
        if any(node.is_active for node in present):
            return Standstill.WAITING
        sources = self._sources(present)
        return Expansion(TransitionKind.EVOLVE, sources[0]) if sources else Standstill.EXHAUSTED

    def expandable(self, tree: Tree) -> frozenset[int]:
        """The present generation, and while that is not over the one before."""
        generations = self._generations(tree)
        is_over = len(generations[-1]) == self.size and not any(node.is_active for node in generations[-1])
        recent = generations[-1] if is_over else [node for members in generations[-2:] for node in members]
        return frozenset(node.id for node in recent if _can_go_on(node))

    def _generations(self, tree: Tree) -> list[list[Node]]:
        """Members by generation; the newest may be incomplete, and the first empty."""
        depth: dict[int, int] = {}
        found: list[list[Node]] = [[]]
        for node in _begun(tree):
            scratch = node.kind is TransitionKind.SCRATCH or node.parent is None
            depth[node.id] = 0 if scratch or node.parent is None else depth[node.parent] + 1
            if depth[node.id] == len(found):
                found.append([])
            found[depth[node.id]].append(node)
        return found

    def _sources(self, generation: list[Node]) -> list[int]:
        """Whom the next generation resumes, survivors first; empty where nobody completed."""
        ranked = sorted(filter(_can_go_on, generation), key=lambda node: (-node.checkpoints[-1].score, node.id))
        if not ranked:
            return []
        replaced = min(max(1, self.size // 4), len(ranked) - 1)
        survivors = sorted(node.id for node in ranked[: len(ranked) - replaced])
        winners = [node.id for node in ranked[: max(1, replaced)]]
        return survivors + [winners[place % len(winners)] for place in range(self.size - len(survivors))]


def _require_root(tree: Tree) -> None:
    if not tree.nodes:
        raise ValueError("an empty tree has no node to expand; create node 0 first")


def _begun(tree: Tree) -> list[Node]:
    """Phases that count: all but those that a person took out before they scored, which are begun anew."""
    return [node for node in tree if node.is_active or node.counts]


def _can_go_on(node: Node) -> bool:
    return node.status is NodeStatus.COMPLETED and node.score is not None and not node.is_leaf


def _best_to_continue(tree: Tree) -> Node | None:
    """As the tree search: what failed is repaired, not continued, and a repair under its failure may yet be pruned."""
    candidates = [
        node
        for node in tree.scored()
        if node.status is not NodeStatus.FAILED and not node.pruned and not node.is_under_failure and not node.is_leaf
    ]
    return max(candidates, key=lambda node: (node.score or 0.0, -node.id), default=None)


def _is_resignation(node: Node) -> bool:
    """A planned phase that the agents declined; one that a person takes out has no rationale, or a configuration."""
    return node.status is NodeStatus.CANCELLED and node.rationale is not None and node.configuration is None


def _standstill(tree: Tree) -> Standstill:
    return Standstill.WAITING if tree.active() else Standstill.EXHAUSTED
