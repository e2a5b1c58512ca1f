"""A repair that worked takes the place of the failure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from search_trees import (
    CANCELLED,
    COMPLETED,
    DEBUG,
    EVOLVE,
    FAILED,
    RUNNING,
    STOPPED,
    begun,
    ended,
    node,
    tree,
)

from llmzero_hpc.search.growth import settle
from llmzero_hpc.search.node import CheckpointReference, NodeStatus
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import Expansion, select
from llmzero_hpc.search.strategy import path

if TYPE_CHECKING:
    from llmzero_hpc.search.tree import Tree


def chain_of_failures() -> Tree:
    """0 scored > 1 failed > 2 failed repair > 3 failed repair, and 4 a second repair of 1, running."""
    return tree(
        node(0, None, 0.5),
        node(1, 0, status=FAILED),
        node(2, 1, status=FAILED, repairs=1),
        node(3, 2, status=FAILED, repairs=2),
        node(4, 1, status=RUNNING, repairs=1),
    )


@pytest.mark.parametrize("status", [COMPLETED, STOPPED])
def test_it_becomes_a_sibling_of_the_first_failure_and_the_rest_is_pruned(status: NodeStatus) -> None:
    grown = begun(chain_of_failures(), Expansion(DEBUG, 3, repairs=3))
    grown = ended(grown, 5, status, 0.6)
    assert (grown[5].parent, grown[5].repairs, grown[5].kind) == (0, 3, DEBUG)
    assert [item.id for item in grown if item.pruned] == [1, 2, 3, 4]
    assert grown[4].is_active


@pytest.mark.parametrize(("status", "score"), [(COMPLETED, None), (STOPPED, None), (FAILED, 0.6), (CANCELLED, 0.6)])
def test_other_endings_move_nothing(status: NodeStatus, score: float | None) -> None:
    grown = ended(chain_of_failures(), 4, status, score)
    assert grown[4].parent == 1
    assert not any(item.pruned for item in grown)


def test_the_repaired_node_evolves_in_the_place_of_the_failure() -> None:
    grown = ended(chain_of_failures(), 4, COMPLETED, 0.6)
    assert select(grown, Rules(min_scratch_ratio=0)) == Expansion(EVOLVE, 4)
    grown = grown.adding(node(5, 0, 0.5))
    # Two places: the repaired node and its sibling. A third child never comes.
    for score in (0.4, 0.3, 0.2, 0.1):
        decision = select(grown, Rules(min_scratch_ratio=0))
        assert isinstance(decision, Expansion)
        assert decision.parent not in {0, 1, 2, 3}
        grown = ended(begun(grown, decision), len(grown), COMPLETED, score)


def test_a_second_repair_that_works_stays_and_keeps_its_score() -> None:
    grown = begun(chain_of_failures(), Expansion(DEBUG, 3, repairs=3))
    grown = ended(grown, 4, COMPLETED, 0.6)
    grown = ended(grown, 5, COMPLETED, 0.9)
    assert grown[5].parent == 3
    assert grown[5].pruned
    assert grown.best() == grown[5]
    assert select(grown, Rules(min_scratch_ratio=0)) == Expansion(EVOLVE, 4)


def test_two_that_end_together_from_one_older_tree() -> None:
    """The second is built from a tree in which it was not pruned yet; the tree's word on its place holds."""
    before = begun(chain_of_failures(), Expansion(DEBUG, 3, repairs=3))
    both = [replace(before[i], status=COMPLETED, checkpoints=node(0, None, 0.6).checkpoints) for i in (4, 5)]
    grown = settle(settle(before, both[0]), both[1])
    assert (grown[4].parent, grown[4].pruned) == (0, False)
    assert (grown[5].parent, grown[5].pruned) == (3, True)


def test_settling_again_changes_nothing() -> None:
    grown = ended(chain_of_failures(), 4, COMPLETED, 0.6)
    assert settle(grown, grown[4]) == grown
    assert settle(grown, grown[2]) == grown


def test_the_repair_of_a_root_is_a_root() -> None:
    grown = tree(node(0, None, status=FAILED), node(1, 0, status=FAILED, repairs=0))
    grown = ended(begun(grown, Expansion(DEBUG, 1, repairs=1)), 2, COMPLETED, 0.4)
    assert (grown[2].parent, grown[2].kind, grown[2].pruned) == (None, DEBUG, False)
    assert [item.id for item in grown if item.pruned] == [0, 1]
    assert select(grown, Rules()) == Expansion(EVOLVE, 2)


def test_a_failure_below_a_repaired_node_begins_a_new_chain() -> None:
    grown = ended(chain_of_failures(), 4, COMPLETED, 0.6)
    grown = grown.adding(node(5, 4, status=FAILED)).adding(node(6, 5, status=RUNNING, repairs=5))
    assert (grown.debug_depth(4), grown.debug_depth(5), grown.debug_depth(6)) == (1, 0, 1)
    grown = ended(grown, 6, COMPLETED, 0.7)
    assert grown[6].parent == 4
    assert [item.id for item in grown if item.pruned] == [1, 2, 3, 5]


def test_weights_of_a_repair_come_from_where_they_came_from() -> None:
    """As in the paper's ChemCoT strategy (table 8): node 2 hangs under 0 and resumes from node 1, which failed."""
    grown = tree(node(0, None, 0.29))
    grown = begun(grown, Expansion(EVOLVE, 0), CheckpointReference(0, 10))
    grown = ended(grown, 1, FAILED, 0.30)
    grown = begun(grown, Expansion(DEBUG, 1, repairs=1), CheckpointReference(1, 20))
    grown = ended(grown, 2, COMPLETED, 0.31)
    assert grown[2].parent == 0
    assert [(phase.node.id, phase.first_step) for phase in path(grown, 2)] == [(0, 1), (1, 11), (2, 21)]


def test_an_active_node_is_refused() -> None:
    grown = chain_of_failures()
    with pytest.raises(ValueError, match="node 4 is running"):
        settle(grown, grown[4])
