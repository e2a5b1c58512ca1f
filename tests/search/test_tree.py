"""What a node and a tree answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from search_trees import CANCELLED, FAILED, RUNNING, node, tree

from llmzero_hpc.search.node import Attempt, Checkpoint, CheckpointReference, Ending, NodeStatus
from llmzero_hpc.search.tree import Evaluation


def test_the_best_checkpoint_of_a_phase_is_the_earlier_of_equals() -> None:
    phase = replace(node(0, None), checkpoints=(Checkpoint(10, 0.3), Checkpoint(20, 0.5), Checkpoint(30, 0.5)))
    assert phase.best == Checkpoint(20, 0.5)
    assert phase.score == 0.5
    assert node(0, None).best is None
    assert node(0, None).score is None


def test_a_score_of_zero_is_a_score() -> None:
    grown = tree(node(0, None, 0.0))
    assert grown[0].score == 0.0
    assert grown.scored() == grown.nodes
    assert grown.best() == grown[0]


def test_the_best_node_is_the_older_of_equals_and_may_be_running() -> None:
    grown = tree(node(0, None, 0.5), node(1, 0, 0.7, status=RUNNING), node(2, 0, 0.7))
    assert grown.best() == grown[1]
    assert [item.id for item in grown.scored()] == [0, 2]


def test_what_counts() -> None:
    assert node(0, None, status=FAILED).counts
    assert not node(0, None, status=CANCELLED).counts
    assert node(0, None, 0.1, status=CANCELLED).counts
    assert not node(0, None, 0.1, status=RUNNING).counts


@pytest.mark.parametrize("status", NodeStatus)
def test_a_node_is_active_or_final(status: NodeStatus) -> None:
    assert replace(node(0, None), status=status).is_active is not status.is_final


def test_only_an_error_completion_or_stop_is_no_infrastructure() -> None:
    assert {ending for ending in Ending if not ending.is_infrastructure} == {
        Ending.COMPLETED,
        Ending.ERROR,
        Ending.STOPPED,
    }


def test_steps_are_numbered_along_the_strategy() -> None:
    assert node(0, None).first_step == 1
    assert replace(node(1, 0), resume=CheckpointReference(0, 30)).first_step == 31


def test_a_tree_takes_ids_in_order() -> None:
    grown = tree(node(0, None, 0.5))
    with pytest.raises(ValueError, match="node 2 cannot follow 0"):
        grown.adding(node(2, 0))
    with pytest.raises(IndexError):
        grown.replacing(node(1, 0))
    with pytest.raises(IndexError):
        grown[-1]


def test_a_change_leaves_the_old_tree_as_it_was() -> None:
    grown = tree(node(0, None, 0.5))
    changed = grown.replacing(replace(grown[0], status=FAILED)).adding(node(1, 0))
    assert (len(grown), grown[0].status) == (1, NodeStatus.COMPLETED)
    assert [item.id for item in changed.children(0)] == [1]


def test_iterations_leave_out_what_was_never_submitted() -> None:
    submitted = replace(node(2, 0, status=CANCELLED), attempts=(Attempt(1, "a", 0.0),))
    assert tree(node(0, None, 0.5), node(1, 0, status=CANCELLED), submitted).iterations() == 2


def test_cost_is_that_of_all_attempts_and_the_evaluation() -> None:
    attempts = (Attempt(1, "a", 0.0, device_seconds=5.0), Attempt(2, "b", 0.0, device_seconds=7.0))
    grown = tree(replace(node(0, None, 0.5), attempts=attempts))
    assert grown.device_seconds() == 12.0
    evaluation = Evaluation(CheckpointReference(0, 10), "test", attempts[:1])
    assert replace(grown, evaluation=evaluation).device_seconds() == 17.0


def test_the_first_failure_of_a_chain() -> None:
    grown = tree(
        node(0, None, 0.5),
        node(1, 0, status=FAILED),
        node(2, 1, status=FAILED, repairs=1),
        node(3, 0, 0.6, repairs=2),
        node(4, 3, 0.6),
    )
    assert [grown.first_failure(i).id for i in range(5)] == [0, 1, 1, 1, 4]
    assert [grown.debug_depth(i) for i in range(5)] == [0, 0, 1, 2, 0]
    assert [item.is_under_failure for item in grown] == [False, False, True, False, False]
