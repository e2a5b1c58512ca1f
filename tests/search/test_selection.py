"""Where the next phase goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from search_trees import (
    CANCELLED,
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

from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import Expansion, Standstill, expandable_nodes, is_terminal, select, terminal_nodes
from llmzero_hpc.search.tree import Tree

RULES = Rules()
NO_INJECTION = Rules(min_scratch_ratio=0.0)
SINGLE_STAGE = Rules(single_stage=True)


def test_an_empty_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        select(Tree(), RULES)


def test_the_scored_root_evolves() -> None:
    assert select(tree(node(0, None, 0.5)), RULES) == Expansion(EVOLVE, 0)


@pytest.mark.parametrize("status", [status for status in NodeStatus if not status.is_final])
def test_an_active_root_makes_the_search_wait(status: NodeStatus) -> None:
    grown = tree(node(0, None, 0.5, status=status))
    assert select(grown, RULES) is Standstill.WAITING
    assert not is_terminal(grown, 0, RULES)


@pytest.mark.parametrize(("status", "score"), [(NodeStatus.COMPLETED, None), (STOPPED, None), (CANCELLED, None)])
def test_a_root_without_a_score_ends_the_search(status: NodeStatus, score: float | None) -> None:
    grown = tree(node(0, None, score, status=status))
    assert select(grown, RULES) is Standstill.EXHAUSTED
    assert is_terminal(grown, 0, RULES)


@pytest.mark.parametrize("score", [None, 0.9])
def test_a_failure_is_repaired_and_never_evolved(score: float | None) -> None:
    grown = tree(node(0, None, score, status=FAILED))
    assert select(grown, RULES) == Expansion(DEBUG, 0, repairs=0)


def test_a_cancelled_phase_with_a_score_evolves() -> None:
    assert select(tree(node(0, None, 0.5, status=CANCELLED)), RULES) == Expansion(EVOLVE, 0)


def test_the_new_child_loses_a_tie() -> None:
    """N(p) = 2, k = 1: both are 1 + 1.414 sqrt(ln 2 / 1)."""
    grown = tree(node(0, None, 0.5), node(1, 0, 0.5))
    assert select(grown, RULES) == Expansion(EVOLVE, 1)


def test_the_older_of_equal_children_wins_a_tie() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, 0.5), node(2, 0, 0.5))
    assert select(grown, RULES) == Expansion(EVOLVE, 1)


def test_a_child_below_its_parent_makes_the_parent_try_again() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, 0.4))
    assert select(grown, RULES) == Expansion(EVOLVE, 0)


def test_two_evolve_children_at_most() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, 0.2), node(2, 0, 0.3))
    assert select(grown, RULES) == Expansion(EVOLVE, 2)


def test_scratch_children_take_no_place() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, 0.2), node(2, 0, 0.2, kind=SCRATCH))
    assert select(grown, RULES) == Expansion(EVOLVE, 0)


def test_children_cancelled_before_a_score_take_no_place() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, status=CANCELLED), node(2, 0, status=CANCELLED))
    assert select(grown, RULES) == Expansion(EVOLVE, 0)


def test_children_in_flight_take_places() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, status=RUNNING))
    assert select(grown, RULES) == Expansion(EVOLVE, 0)
    grown = begun(grown, Expansion(EVOLVE, 0))
    assert select(grown, RULES) is Standstill.WAITING
    assert terminal_nodes(grown, RULES) == frozenset()


def test_repairs_in_flight_take_places() -> None:
    grown = tree(node(0, None, status=FAILED))
    for _ in range(3):
        decision = select(grown, RULES)
        assert decision == Expansion(DEBUG, 0, repairs=0)
        grown = begun(grown, Expansion(DEBUG, 0, repairs=0))
    assert select(grown, RULES) is Standstill.WAITING


def test_phases_in_flight_turn_the_next_decision_elsewhere() -> None:
    """Two equal children take turns; counted by what has ended alone, the first would be chosen twice."""
    grown = tree(node(0, None, 0.5), node(1, 0, 0.6), node(2, 0, 0.6))
    chosen = []
    for _ in range(3):
        decision = select(grown, NO_INJECTION)
        assert isinstance(decision, Expansion)
        chosen.append(decision.parent)
        grown = begun(grown, decision)
    assert chosen == [1, 2, 1]


def test_a_debug_chain_ends_at_its_depth() -> None:
    grown = tree(node(0, None, status=FAILED), *(node(i, i - 1, status=FAILED, repairs=i - 1) for i in range(1, 6)))
    assert grown.debug_depth(5) == 5
    assert terminal_nodes(grown, RULES) == {5}
    decision = select(grown, RULES)
    assert isinstance(decision, Expansion)
    assert decision.parent != 5


def test_all_repairs_used_up_ends_the_search() -> None:
    rules = Rules(max_debug_children=2, max_debug_depth=1)
    grown = tree(
        node(0, None, status=FAILED), node(1, 0, status=FAILED, repairs=0), node(2, 0, status=FAILED, repairs=0)
    )
    assert select(grown, rules) is Standstill.EXHAUSTED
    assert terminal_nodes(grown, rules) == {0, 1, 2}


def test_terminality_moves_up() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0), node(2, 0))
    assert terminal_nodes(grown, RULES) == {0, 1, 2}
    assert select(grown, RULES) is Standstill.EXHAUSTED


def test_a_scratch_phase_ends_the_terminality_of_its_host() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0), node(2, 0), node(3, 0, 0.4, kind=SCRATCH))
    assert terminal_nodes(grown, RULES) == {1, 2}
    assert select(grown, RULES) == Expansion(EVOLVE, 3)


def test_a_pruned_phase_is_never_expanded() -> None:
    grown = tree(node(0, None, status=FAILED, pruned=True), node(1, None, 0.3, repairs=0))
    grown = grown.adding(node(2, 0, 0.9, repairs=0, pruned=True))
    assert select(grown, RULES) == Expansion(EVOLVE, 1)
    assert terminal_nodes(grown, RULES) == {0, 2}


def test_a_pruned_child_takes_no_place() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, status=FAILED, pruned=True), node(2, 0, 0.2, repairs=1))
    assert select(grown, RULES) == Expansion(EVOLVE, 0)


def test_injection_hangs_under_the_best_node_even_a_full_one() -> None:
    grown = tree(
        node(0, None, 0.5), node(1, 0, 0.9), node(2, 0, 0.4), node(3, 1, 0.6), node(4, 1, 0.6), node(5, 2, 0.3)
    )
    assert select(grown, RULES) == Expansion(SCRATCH, 1)
    assert select(grown, NO_INJECTION) != Expansion(SCRATCH, 1)


def test_injection_takes_the_older_of_equal_nodes() -> None:
    grown = tree(node(0, None, 0.5), *(node(i, i - 1, 0.7) for i in range(1, 6)))
    assert select(grown, RULES) == Expansion(SCRATCH, 1)


def test_injection_counts_phases_in_flight() -> None:
    grown = tree(node(0, None, 0.5), *(node(i, i - 1, 0.7) for i in range(1, 6)))
    grown = begun(grown, Expansion(SCRATCH, 1))
    decision = select(grown, RULES)
    assert isinstance(decision, Expansion)
    assert decision.kind is EVOLVE


def test_injection_passes_failures_and_pruned_nodes_by() -> None:
    """A from-scratch phase under a failure would be pruned with it once the failure is repaired."""
    grown = tree(
        node(0, None, 0.5),
        node(1, 0, 0.9, status=FAILED),
        node(2, 0, 0.95, status=FAILED, pruned=True),
        node(3, 0, 0.6),
        node(4, 3, 0.4),
        node(5, 3, 0.4),
    )
    assert select(grown, RULES) == Expansion(SCRATCH, 3)


def test_injection_waits_for_a_score() -> None:
    grown = tree(node(0, None, status=FAILED), *(node(i, i - 1, status=FAILED, repairs=i - 1) for i in range(1, 6)))
    decision = select(grown, RULES)
    assert isinstance(decision, Expansion)
    assert decision.kind is DEBUG


def test_a_cancelled_repair_is_not_grown_on() -> None:
    grown = tree(node(0, None, status=FAILED), node(1, 0, 0.5, status=CANCELLED, repairs=0))
    assert select(grown, RULES) == Expansion(DEBUG, 0, repairs=0)
    assert is_terminal(grown, 1, RULES)


def test_scores_of_running_phases_decide_nothing() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, 0.4), node(2, 0, 0.6, status=RUNNING))
    silent = grown.replacing(replace(grown[2], checkpoints=()))
    assert select(grown, RULES) == select(silent, RULES) == Expansion(EVOLVE, 1)


def test_the_repair_of_a_scratch_phase_takes_no_place_either() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, 0.2), node(2, 0, status=FAILED, kind=SCRATCH))
    grown = begun(grown, Expansion(DEBUG, 2, repairs=2))
    grown = ended(grown, 3, NodeStatus.COMPLETED, 0.2)
    assert grown[3].parent == 0
    assert select(grown, RULES) == Expansion(EVOLVE, 0)


def test_repairs_of_a_scratch_phase_have_their_own_limit() -> None:
    rules = Rules(max_debug_children=1, max_debug_depth=1)
    grown = tree(node(0, None, status=FAILED), node(1, 0, status=FAILED, repairs=0))
    assert select(grown, rules) is Standstill.EXHAUSTED


def test_a_single_stage_search_starts_from_scratch_where_another_would_evolve() -> None:
    """Whatever the kind, the place is the same; twenty phases, with failures among them."""
    single, whole = tree(node(0, None, 0.5)), tree(node(0, None, 0.5))
    for number in range(1, 20):
        ours, theirs = select(single, SINGLE_STAGE), select(whole, NO_INJECTION)
        assert isinstance(ours, Expansion)
        assert isinstance(theirs, Expansion)
        assert (ours.parent, ours.repairs) == (theirs.parent, theirs.repairs)
        assert ours.kind is (DEBUG if theirs.kind is DEBUG else SCRATCH)
        status, score = (FAILED, None) if number % 5 == 0 else (NodeStatus.COMPLETED, number * 7 % 11 / 11)
        single = ended(begun(single, ours), number, status, score)
        whole = ended(begun(whole, theirs), number, status, score)


def test_scratch_phases_of_a_single_stage_search_take_places() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, kind=SCRATCH), node(2, 0, kind=SCRATCH))
    assert select(grown, SINGLE_STAGE) is Standstill.EXHAUSTED
    assert select(grown, RULES) == Expansion(EVOLVE, 0)


def test_a_single_stage_search_injects_nothing_besides() -> None:
    """Repairs are no scratch phases, yet they start from scratch as well."""
    grown = tree(
        node(0, None, status=FAILED, pruned=True),
        *(node(i, i - 1, status=FAILED, repairs=i - 1, pruned=True) for i in range(1, 6)),
        node(6, None, 0.5, kind=DEBUG, repairs=5),
    )
    assert select(grown, RULES) == Expansion(SCRATCH, 6)
    assert select(grown, SINGLE_STAGE) == Expansion(SCRATCH, 6)
    full = grown.adding(node(7, 6, kind=SCRATCH)).adding(node(8, 6, kind=SCRATCH))
    assert select(full, SINGLE_STAGE) is Standstill.EXHAUSTED


def test_a_strategy_that_has_used_up_its_compute_is_not_continued() -> None:
    spent = replace(node(2, 1, 0.9), is_leaf=True)
    grown = tree(node(0, None, 0.5), node(1, 0, 0.6), spent)
    choice = select(grown, NO_INJECTION)
    assert isinstance(choice, Expansion)
    assert (choice.kind, choice.parent in {0, 1}) == (EVOLVE, True)
    assert is_terminal(grown, 2, NO_INJECTION)
    assert not expandable_nodes(grown, NO_INJECTION) & {2}


def test_where_all_strategies_have_used_up_their_compute_another_one_begins() -> None:
    """Without a limit the same tree could grow; with it, only from scratch, under the best score as always."""
    grown = tree(replace(node(0, None, 0.5), is_leaf=True))
    assert select(grown, NO_INJECTION) == Expansion(SCRATCH, 0)
    running = grown.adding(node(1, 0, status=RUNNING, kind=SCRATCH))
    assert select(running, NO_INJECTION) == Expansion(SCRATCH, 0)


def test_a_failure_at_the_end_of_a_strategy_is_still_repaired() -> None:
    failed = replace(node(0, None, status=FAILED), is_leaf=True)
    assert select(tree(failed), RULES) == Expansion(DEBUG, 0, repairs=0)
