"""What may go is never missed: random searches lose every checkpoint that is not needed, as soon as it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from search_trees import CANCELLED, COMPLETED, DEBUG, FAILED, RUNNING, SCRATCH, ended, node, tree
from test_random_searches import Search

from llmzero_hpc.search.housekeeping import needed_checkpoints
from llmzero_hpc.search.methods import TreeSearch
from llmzero_hpc.search.node import Checkpoint, CheckpointReference, NodeStatus
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import Expansion, select
from llmzero_hpc.search.strategy import path
from llmzero_hpc.search.tree import Evaluation

if TYPE_CHECKING:
    from hypothesis.strategies import DataObject

    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree


def of(*pairs: tuple[int, int]) -> set[CheckpointReference]:
    return {CheckpointReference(*pair) for pair in pairs}


def resuming(one: Node, parent: int, step: int, *points: tuple[int, float]) -> Node:
    return replace(
        one, resume=CheckpointReference(parent, step), checkpoints=tuple(Checkpoint(*point) for point in points)
    )


def full_tree() -> Tree:
    """Node 0 has both its children; 1 is the best, 2 has room for more."""
    return tree(
        replace(node(0, None, 0.5), checkpoints=(Checkpoint(5, 0.4), Checkpoint(10, 0.5), Checkpoint(15, 0.45))),
        resuming(node(1, 0), 0, 10, (20, 0.8), (25, 0.9), (30, 0.7)),
        resuming(node(2, 0), 0, 15, (20, 0.3)),
    )


ONE_CHILD = TreeSearch(Rules(max_evolve_children=1))


def test_a_node_with_all_its_children_keeps_what_they_came_from() -> None:
    needed = needed_checkpoints(full_tree(), TreeSearch(Rules()))

    assert needed == of((0, 10), (0, 15), (1, 20), (1, 25), (1, 30), (2, 20))


def test_a_child_in_flight_may_be_cancelled_and_leaves_its_place() -> None:
    flying = full_tree().replacing(resuming(node(2, 0, status=RUNNING), 0, 15))
    cancelled = flying.replacing(replace(flying[2], status=CANCELLED))

    assert of((0, 5), (0, 10), (0, 15)) <= needed_checkpoints(flying, TreeSearch(Rules()))
    assert of((0, 5), (0, 10), (0, 15)) <= needed_checkpoints(cancelled, TreeSearch(Rules()))


def test_a_planned_phase_needs_all_that_it_may_choose_from() -> None:
    planned = replace(node(2, 0, status=NodeStatus.PLANNED))
    before = full_tree()
    crowded = before.replacing(planned)
    failed = ended(before, 2, FAILED, 0.3)
    repairing = failed.adding(replace(node(3, 2, status=NodeStatus.PLANNED), kind=DEBUG, repairs=2))

    assert of((0, 5), (0, 10), (0, 15)) <= needed_checkpoints(crowded, ONE_CHILD)
    assert of((0, 15)) <= needed_checkpoints(repairing, TreeSearch(Rules(max_debug_children=1, max_evolve_children=1)))


def test_a_failure_that_may_be_repaired_needs_where_it_resumed() -> None:
    failed = full_tree().replacing(resuming(node(2, 0, status=FAILED), 0, 15))

    assert of((0, 15)) <= needed_checkpoints(failed, TreeSearch(Rules()))
    assert CheckpointReference(0, 15) not in needed_checkpoints(failed, TreeSearch(Rules(max_debug_children=0)))


def test_a_repair_in_flight_below_what_another_repair_pruned_needs_where_it_resumes() -> None:
    failed = full_tree().replacing(replace(resuming(node(2, 0, status=FAILED), 0, 15), pruned=True))
    late = failed.adding(replace(resuming(node(3, 2, status=RUNNING), 0, 15), kind=DEBUG, repairs=2, pruned=True))

    assert CheckpointReference(0, 15) not in needed_checkpoints(failed, ONE_CHILD)
    assert CheckpointReference(0, 15) in needed_checkpoints(late, ONE_CHILD)


def test_a_running_phase_pushes_no_final_one_out_as_it_may_lose_its_score() -> None:
    full = full_tree().adding(resuming(node(3, 1), 1, 20, (30, 0.1)))
    running = replace(node(4, 2, status=RUNNING, kind=SCRATCH), checkpoints=(Checkpoint(5, 0.99),))

    assert CheckpointReference(1, 25) in needed_checkpoints(full.adding(running), ONE_CHILD)
    assert CheckpointReference(1, 25) not in needed_checkpoints(
        full.adding(replace(running, status=COMPLETED)), ONE_CHILD
    )


def test_a_search_that_is_over_needs_its_best_strategy_only() -> None:
    assert needed_checkpoints(full_tree(), TreeSearch(Rules()), is_over=True) == of((0, 10), (1, 25))
    assert needed_checkpoints(full_tree(), TreeSearch(Rules()), is_over=True, best=2) == of((0, 10), (1, 25))
    assert needed_checkpoints(full_tree(), TreeSearch(Rules()), is_over=True, best=3) == of(
        (0, 10), (1, 25), (0, 15), (2, 20)
    )


def test_what_is_scored_on_the_test_split_stays() -> None:
    scored = replace(full_tree(), evaluation=Evaluation(CheckpointReference(2, 20), "test"))

    assert of((2, 20), (0, 15)) <= needed_checkpoints(scored, TreeSearch(Rules()), is_over=True)


class TidySearch(Search):
    """The random search beside a disk from which everything goes that is not needed at some moment."""

    @initialize()
    def empty(self) -> None:
        self.gone: set[CheckpointReference] = set()

    @rule()
    def collect(self) -> None:
        needed = needed_checkpoints(self.tree, TreeSearch(self.rules))
        final = {
            CheckpointReference(one.id, point.step)
            for one in self.tree
            if one.status.is_final
            for point in one.checkpoints
        }
        self.gone |= final - needed

    @precondition(lambda self: any(len(one.checkpoints) > 1 for one in self.active()))
    @rule(data=st.data())
    def stop_early(self, data: DataObject) -> None:
        """What was validated after the judged step does not count: a running phase may lose its best score."""
        one = data.draw(st.sampled_from([one for one in self.active() if len(one.checkpoints) > 1]))
        left = data.draw(st.integers(1, len(one.checkpoints) - 1))
        self.tree = self.tree.replacing(replace(one, checkpoints=one.checkpoints[:left]))

    @invariant()
    def phases_in_flight_find_where_they_resume(self) -> None:
        assert self.gone.isdisjoint(one.resume for one in self.active())

    @invariant()
    def the_next_phase_finds_all_that_it_may_choose_from(self) -> None:
        decision = select(self.tree, self.rules)
        if isinstance(decision, Expansion) and decision.kind is not SCRATCH:
            parent = self.tree[decision.parent]
            choice = {CheckpointReference(parent.id, point.step) for point in parent.checkpoints}
            assert self.gone.isdisjoint({*choice, parent.resume})

    @invariant()
    def the_best_strategy_has_all_its_adapters(self) -> None:
        best = self.tree.best()
        if best is not None and best.best is not None:
            steps = path(self.tree, best.id, best.best.step)
            assert self.gone.isdisjoint(CheckpointReference(part.node.id, part.last_step) for part in steps)

    @invariant()
    def what_was_not_needed_once_is_not_needed_later(self) -> None:
        assert self.gone.isdisjoint(needed_checkpoints(self.tree, TreeSearch(self.rules)))


TestTidySearches = TidySearch.TestCase
TestTidySearches.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
