"""Where baselines grow: decided from the tree alone, within their limits, whatever becomes of the phases."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_trees import (
    CANCELLED,
    COMPLETED,
    DEBUG,
    EVOLVE,
    FAILED,
    RUNNING,
    SCRATCH,
    STOPPED,
    begun,
    ended,
    node,
    tree,
)

from llmzero_hpc.search.methods import GreedyChain, IndependentTrials, Method, OwnChoice, Population, Schedule
from llmzero_hpc.search.node import Checkpoint, CheckpointReference, NodeStatus, Rationale
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import Expansion, Standstill
from llmzero_hpc.search.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

EXHAUSTED, WAITING = Standstill.EXHAUSTED, Standstill.WAITING
OUTCOMES = st.sampled_from([COMPLETED, COMPLETED, COMPLETED, FAILED, STOPPED, CANCELLED])


def grown(method: Method, scores: Sequence[float], start: Tree) -> Tree:
    """One phase at a time, each with its score."""
    for score in scores:
        choice = method.next(start)
        assert isinstance(choice, Expansion), start
        parent = start[choice.parent]
        point = parent.checkpoints[-1] if choice.kind is EVOLVE else None
        resume = CheckpointReference(parent.id, point.step) if point else None
        start = begun(start, choice, resume)
        start = ended(start, len(start) - 1, COMPLETED, score)
    return start


def test_trials_are_independent_and_end_at_their_limit() -> None:
    method = IndependentTrials(3)
    done = grown(method, [0.2, 0.3], tree(node(0, None, 0.1)))
    assert [phase.kind for phase in done] == [SCRATCH] * 3
    assert method.next(done) is EXHAUSTED
    assert method.expandable(done) == frozenset()
    assert isinstance(IndependentTrials(None).next(done), Expansion)


def test_a_trial_in_flight_is_waited_for_and_a_cancelled_one_made_up_for() -> None:
    method = IndependentTrials(2)
    running = tree(node(0, None, 0.1), node(1, 0, status=RUNNING, kind=SCRATCH))
    assert method.next(running) is WAITING
    cancelled = running.replacing(replace(running[1], status=CANCELLED))
    assert method.next(cancelled) == Expansion(SCRATCH, 0)
    failed = running.replacing(replace(running[1], status=FAILED))
    assert method.next(failed) is EXHAUSTED


def test_a_schedule_is_one_chain() -> None:
    method = Schedule(3)
    start = tree(node(0, None, 0.1))
    assert method.expandable(start) == {0}
    done = grown(method, [0.05, 0.3], start)
    assert [phase.parent for phase in done] == [None, 0, 1]
    assert method.next(done) is EXHAUSTED
    assert method.expandable(done) == frozenset()


@pytest.mark.parametrize("status", [FAILED, STOPPED])
def test_a_schedule_ends_with_a_phase_that_did_not_complete(status: NodeStatus) -> None:
    broken = tree(node(0, None, 0.1), node(1, 0, 0.2, status=status))
    assert Schedule(3).next(broken) is EXHAUSTED
    assert Schedule(3).expandable(broken) == frozenset()


def test_a_phase_of_a_schedule_that_a_person_took_out_is_begun_anew() -> None:
    cut = tree(node(0, None, 0.1), node(1, 0, status=CANCELLED))
    assert Schedule(3).next(cut) == Expansion(EVOLVE, 0)
    assert Schedule(3).next(tree(node(0, None, status=CANCELLED))) == Expansion(SCRATCH, 0)


def test_the_worst_of_a_population_resumes_the_best() -> None:
    method = Population(4)
    first = grown(method, [0.4, 0.1, 0.3], tree(node(0, None, 0.2)))
    assert all(phase.kind is SCRATCH for phase in first)
    second = grown(method, [0.5, 0.5, 0.5, 0.5], first)
    assert [phase.parent for phase in second][4:] == [0, 1, 3, 1], "survivors in order, then a copy of the best"
    assert method.expandable(second) == {4, 5, 6, 7}


def test_members_that_failed_are_replaced_and_a_dead_population_ends() -> None:
    method = Population(2)
    half = tree(node(0, None, 0.2), node(1, 0, status=FAILED, kind=SCRATCH))
    assert [phase.parent for phase in grown(method, [0.3, 0.3], half)][2:] == [0, 0]
    dead = tree(node(0, None, status=FAILED), node(1, 0, status=FAILED, kind=SCRATCH))
    assert method.next(dead) is EXHAUSTED


def test_a_generation_waits_for_the_one_before() -> None:
    waiting = tree(node(0, None, 0.2), node(1, 0, status=RUNNING, kind=SCRATCH))
    assert Population(2).next(waiting) is WAITING


def test_a_greedy_chain_continues_the_best_whatever_was_tried_from_it() -> None:
    method = GreedyChain(Rules())
    done = grown(method, [0.3, 0.2, 0.25, 0.4, 0.1], tree(node(0, None, 0.1)))
    assert [phase.parent for phase in done] == [None, 0, 1, 1, 1, 4]
    assert {phase.kind for phase in done if phase.id} == {EVOLVE}, "nothing is injected"
    assert method.expandable(done) == {4}


def test_a_greedy_chain_repairs_a_failure_within_limits_and_then_goes_on_from_the_best() -> None:
    method = GreedyChain(Rules(max_debug_children=2, max_debug_depth=1))
    now = tree(node(0, None, 0.3), node(1, 0, status=FAILED))
    for number in (2, 3):
        choice = method.next(now)
        assert choice == Expansion(DEBUG, 1, repairs=1)
        assert 1 in method.expandable(now)
        now = ended(begun(now, choice), number, FAILED, None)
    assert method.next(now) == Expansion(EVOLVE, 0)
    assert method.expandable(now) == {0}
    dead = tree(
        node(0, None, status=FAILED), node(1, 0, status=FAILED, repairs=0), node(2, 0, status=FAILED, repairs=0)
    )
    assert method.next(dead) is EXHAUSTED


@given(parallel=st.integers(1, 3), data=st.data())
def test_a_greedy_chain_resumes_nothing_that_it_had_given_away(parallel: int, data: st.DataObject) -> None:
    method = GreedyChain(Rules(max_debug_children=2, max_debug_depth=2))
    now = tree(node(0, None, 0.5))
    given_away: set[int] = set()
    for _ in range(24):
        given_away |= {phase.id for phase in now if phase.status.is_final} - method.expandable(now)
        flying = [phase.id for phase in now.active()]
        choice = method.next(now) if len(flying) < parallel else WAITING
        if isinstance(choice, Expansion):
            assert choice.parent not in given_away
            # A repair whose failure is still at stake may yet be taken out with it.
            settled = [one.score or 0 for one in now.scored() if not one.is_under_failure and not one.pruned]
            assert choice.kind is DEBUG or now[choice.parent].score == max(settled)
            now = begun(now, choice)
        else:
            assert flying
            status = data.draw(OUTCOMES)
            score = data.draw(st.sampled_from([0.1, 0.5, 0.6, 0.7])) if status in {COMPLETED, STOPPED} else None
            now = ended(now, data.draw(st.sampled_from(flying)), status, score)


def test_phases_of_their_own_choice_follow_each_other_until_there_are_to_be_no_more() -> None:
    method = OwnChoice()
    assert method.leaves_choice
    assert method.next(tree(node(0, None, status=RUNNING))) is WAITING
    two = tree(node(0, None, 0.1), node(1, 0, status=FAILED))
    assert method.next(two) == Expansion(SCRATCH, 0)
    assert method.expandable(two) == {0}
    taken_out = two.adding(node(2, 0, status=CANCELLED))
    assert method.next(taken_out) == Expansion(SCRATCH, 0), "by a person, who does not speak for the agent"
    declined = two.adding(replace(node(2, 0, status=CANCELLED), rationale=Rationale("a-model", "It is enough.")))
    assert method.next(declined) is EXHAUSTED
    assert method.expandable(declined) == frozenset()


@pytest.mark.parametrize(
    "method", [IndependentTrials(1), Schedule(1), Population(2), GreedyChain(Rules()), OwnChoice()]
)
def test_an_empty_tree_is_refused(method: Method) -> None:
    with pytest.raises(ValueError, match="create node 0 first"):
        method.next(Tree())


@given(
    method=st.sampled_from([IndependentTrials(5), Schedule(4), Population(2), Population(4), Population(5)]),
    parallel=st.integers(1, 3),
    data=st.data(),
)
def test_what_is_resumed_was_expandable_ever_since(method: Method, parallel: int, data: st.DataObject) -> None:
    """Nothing that a method resumes may have been given away before; nothing in flight is resumed."""
    now = tree(node(0, None, 0.5))
    given_away: set[int] = set()
    for _ in range(24):
        given_away |= {phase.id for phase in now if phase.status.is_final} - method.expandable(now)
        flying = [phase.id for phase in now.active()]
        choice = method.next(now) if len(flying) < parallel else WAITING
        if isinstance(choice, Expansion):
            if choice.kind is EVOLVE:
                assert choice.parent not in given_away
                assert now[choice.parent].status is COMPLETED
            now = begun(now, choice)
        elif flying:
            ending = data.draw(st.sampled_from(flying))
            status = data.draw(OUTCOMES)
            score = data.draw(st.sampled_from([0.1, 0.2, 0.3])) if status in {COMPLETED, STOPPED} else None
            points = () if score is None else (Checkpoint(10, score),)
            now = now.replacing(replace(now[ending], status=status, checkpoints=points))
        else:
            assert choice is EXHAUSTED
            return


def test_no_method_continues_a_strategy_that_has_used_up_its_compute() -> None:
    spent = tree(replace(node(0, None, 0.1), is_leaf=True))
    assert Schedule(3).next(spent) is EXHAUSTED
    assert Schedule(3).expandable(spent) == frozenset()
    assert GreedyChain(Rules()).next(spent) is EXHAUSTED
    members = spent.adding(replace(node(1, 0, 0.2, kind=SCRATCH), is_leaf=True))
    assert Population(2).next(members) is EXHAUSTED
    first = tree(node(0, None, 0.1), replace(node(1, 0, 0.9), is_leaf=True))
    assert GreedyChain(Rules()).next(first) == Expansion(EVOLVE, 0)
