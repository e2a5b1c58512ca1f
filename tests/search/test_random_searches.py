"""Random searches: whatever phases do, in whatever order, the tree keeps its promises."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from paper_rule import PaperRule
from search_trees import CANCELLED, COMPLETED, DEBUG, EVOLVE, FAILED, RUNNING, SCRATCH, STOPPED

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.growth import settle
from llmzero_hpc.search.node import Checkpoint, CheckpointReference, Node
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import Expansion, Standstill, select, terminal_nodes
from llmzero_hpc.search.statistics import survey
from llmzero_hpc.search.strategy import path, valid_in_strategy
from llmzero_hpc.search.tree import Tree

if TYPE_CHECKING:
    from hypothesis.strategies import DataObject

SCORES = st.sampled_from([i / 16 for i in range(17)])  # sums of sixteenths are exact, so ties are ties in any order
GOOD = st.tuples(st.sampled_from([COMPLETED, STOPPED]), SCORES)
FAILURE = st.tuples(st.just(FAILED), st.none() | SCORES)
ODD = st.tuples(st.sampled_from([COMPLETED, STOPPED, CANCELLED]), st.none()) | st.tuples(st.just(CANCELLED), SCORES)
OUTCOMES = st.sampled_from([GOOD, GOOD, GOOD, FAILURE, FAILURE, ODD]).flatmap(lambda outcomes: outcomes)
RULES = st.builds(
    Rules,
    max_evolve_children=st.sampled_from([1, 2, 2]),
    max_debug_children=st.sampled_from([1, 2, 3]),
    max_debug_depth=st.sampled_from([1, 2, 5]),
    min_scratch_ratio=st.sampled_from([0.0, 0.2, 0.5]),
    forgiven_failures=st.sampled_from([0, 2]),
    single_stage=st.sampled_from([False, False, True]),
)


class Search(RuleBasedStateMachine):
    """A controller that obeys `select` and `settle`, over phases that end as they like."""

    @initialize(rules=RULES, slots=st.sampled_from([1, 1, 2, 4]), outcome=GOOD | FAILURE)
    def begin(self, rules: Rules, slots: int, outcome: tuple[object, float | None]) -> None:
        self.rules, self.slots = rules, slots
        root = Node(0, SCRATCH, None, seed=0, created_at=0.0, status=RUNNING, configuration=Configuration())
        self.tree = Tree((root,))
        self.ended: dict[int, tuple[object, object]] = {}
        self.end(root, outcome)

    def oracle(self) -> PaperRule:
        return PaperRule(self.tree.nodes, self.rules)

    def active(self) -> list[Node]:
        return [node for node in self.tree if not node.status.is_final]

    @precondition(lambda self: len(self.active()) < self.slots)
    @rule(data=st.data())
    def fill_a_slot(self, data: DataObject) -> None:
        oracle, decision = self.oracle(), select(self.tree, self.rules)
        expandable = {node.id for node in self.tree if node.status.is_final and oracle.can_expand(node)}

        if not self.active():
            expected = oracle.next()
            got = (decision.kind, decision.parent) if isinstance(decision, Expansion) else None
            assert got == expected
        if not isinstance(decision, Expansion):
            assert not expandable
            assert (decision is Standstill.WAITING) == bool(self.active())
            return

        parent = self.tree[decision.parent]
        assert parent.status.is_final
        assert not parent.pruned
        assert (decision.kind is DEBUG) == (parent.status is FAILED)
        assert decision.repairs == (parent.id if decision.kind is DEBUG else None)
        if decision.kind is not SCRATCH or self.rules.single_stage:
            assert parent.id in expandable
            assert parent.id not in terminal_nodes(self.tree, self.rules)

        resume = self.resume_for(decision, data)
        wanted = Configuration(lora_rank=data.draw(st.sampled_from([8, 64])))
        if not valid_in_strategy(self.tree, wanted, resume):
            assert resume is not None
            wanted = wanted.changed(lora_rank=self.tree[resume.node].configuration.lora_rank)
        assert valid_in_strategy(self.tree, wanted, resume)
        self.tree = self.tree.adding(
            Node(
                id=len(self.tree),
                kind=decision.kind,
                parent=decision.parent,
                seed=0,
                created_at=0.0,
                status=RUNNING,
                repairs=decision.repairs,
                resume=resume,
                configuration=wanted,
            )
        )

    def resume_for(self, decision: Expansion, data: DataObject) -> CheckpointReference | None:
        parent = self.tree[decision.parent]
        if decision.kind is EVOLVE or (decision.kind is DEBUG and parent.checkpoints and not self.rules.single_stage):
            return CheckpointReference(parent.id, data.draw(st.sampled_from(parent.checkpoints)).step)
        return parent.resume if decision.kind is DEBUG else None

    @precondition(lambda self: self.active())
    @rule(data=st.data(), score=SCORES)
    def validate(self, data: DataObject, score: float) -> None:
        node = data.draw(st.sampled_from(self.active()))
        last = node.checkpoints[-1].step if node.checkpoints else node.first_step - 1
        points = (*node.checkpoints, Checkpoint(last + 5, score))
        self.tree = self.tree.replacing(replace(node, checkpoints=points, last_step=last + 5))

    @precondition(lambda self: self.active())
    @rule(data=st.data(), outcome=OUTCOMES)
    def end_one(self, data: DataObject, outcome: tuple[object, float | None]) -> None:
        self.end(data.draw(st.sampled_from(self.active())), outcome)

    @precondition(lambda self: len(self.active()) > 1)
    @rule(outcomes=st.lists(OUTCOMES, min_size=4, max_size=4))
    def end_all_at_once(self, outcomes: list[tuple[object, float | None]]) -> None:
        """All from one look at the tree, as one tick of a controller does."""
        for node, outcome in zip(self.active(), outcomes, strict=False):
            self.end(node, outcome)

    def end(self, node: Node, outcome: tuple[object, float | None]) -> None:
        status, score = outcome
        if score is not None:
            last = node.checkpoints[-1].step if node.checkpoints else node.first_step - 1
            node = replace(node, checkpoints=(*node.checkpoints, Checkpoint(last + 5, score)), last_step=last + 5)
        self.tree = settle(self.tree, replace(node, status=status))
        self.ended[node.id] = (status, node.checkpoints)

    @invariant()
    def no_node_is_lost_and_each_has_one_place(self) -> None:
        assert [node.id for node in self.tree] == list(range(len(self.tree)))
        for node in self.tree:
            assert node.parent is None or node.parent < node.id
            if node.id in self.ended:
                assert (node.status, node.checkpoints) == self.ended[node.id]
        seen = survey(self.tree)
        below = [child for children in seen.children for child in children]
        assert sorted([*seen.roots, *below]) == list(range(len(self.tree)))

    @invariant()
    def counts_add_up(self) -> None:
        seen = survey(self.tree)
        whole = [seen.subtrees[root] for root in seen.roots]
        uncounted = [node for node in self.tree if node.status is CANCELLED and not node.checkpoints]
        assert sum(part.visits for part in whole) + len(uncounted) == len(self.tree)
        assert sum(part.in_flight for part in whole) == len(self.active())
        assert sum(part.failed for part in whole) == len([node for node in self.tree if node.status is FAILED])
        assert sum(part.early_stopped for part in whole) == len([n for n in self.tree if n.status is STOPPED])
        final = [node for node in self.tree if node.status.is_final and node.checkpoints]
        assert sum(part.validated for part in whole) == len(final)

    @invariant()
    def limits_hold(self) -> None:
        assert len(self.active()) <= self.slots
        oracle = self.oracle()
        for node in self.tree:
            if node.status is FAILED:
                assert oracle.k(node) <= self.rules.max_debug_children
            else:
                assert oracle.k(node) <= self.rules.max_evolve_children
            assert self.tree.debug_depth(node.id) <= self.rules.max_debug_depth

    @invariant()
    def single_stage_searches_resume_nothing(self) -> None:
        if self.rules.single_stage:
            assert not [node for node in self.tree if node.kind is EVOLVE or node.resume is not None]
            assert all(len(path(self.tree, node.id)) == 1 for node in self.tree)

    @invariant()
    def nothing_lives_below_what_is_pruned(self) -> None:
        for node in self.tree:
            if node.parent is not None and self.tree[node.parent].pruned:
                assert node.pruned
        assert len([node for node in self.tree if node.parent is None and not node.pruned]) == 1

    @invariant()
    def terminal_is_what_the_paper_calls_terminal(self) -> None:
        if not self.active():
            oracle = self.oracle()
            assert terminal_nodes(self.tree, self.rules) == {node.id for node in self.tree if oracle.terminal(node)}

    @invariant()
    def repairs_that_worked_are_siblings_of_the_failure(self) -> None:
        for node in self.tree:
            worked = node.status in {COMPLETED, STOPPED} and node.checkpoints
            if node.kind is DEBUG and worked and not node.pruned:
                failure = self.oracle().chain(node)[-1]
                assert failure.pruned
                assert failure.parent == node.parent

    @invariant()
    def fixed_parameters_are_constant_in_a_strategy(self) -> None:
        for node in self.tree:
            ranks = {phase.node.configuration.lora_rank for phase in path(self.tree, node.id)}
            assert len(ranks) == 1


TestRandomSearches = Search.TestCase
TestRandomSearches.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
