"""What is counted, and how long counting takes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from search_trees import CANCELLED, FAILED, RUNNING, SCRATCH, STOPPED, node, tree

from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import Expansion, select, terminal_nodes
from llmzero_hpc.search.statistics import ScoreRange, SubtreeStatistics, survey
from llmzero_hpc.search.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable


def test_counts_overlap() -> None:
    grown = tree(
        node(0, None, 0.5),
        node(1, 0, 0.25, status=STOPPED),
        node(2, 1, 0.75, status=FAILED),
        node(3, 1, status=FAILED),
        node(4, 0),
    )
    seen = survey(grown)
    assert seen.subtrees[1] == SubtreeStatistics(3, validated=2, failed=2, early_stopped=1, score_sum=1.0)
    assert seen.subtrees[0] == SubtreeStatistics(5, validated=3, failed=2, early_stopped=1, score_sum=1.5)
    assert seen.subtrees[0].mean_score == 0.5
    assert seen.subtrees[4].mean_score is None
    assert seen.scores == ScoreRange(0.25, 0.75)
    assert seen.children == ((1, 4), (2, 3), (), (), ())


def test_running_nodes_are_visits_without_value() -> None:
    seen = survey(tree(node(0, None, 0.5), node(1, 0, 0.9, status=RUNNING)))
    assert seen.subtrees[0] == SubtreeStatistics(1, validated=1, score_sum=0.5, in_flight=1)
    assert seen.subtrees[0].visits == 2
    assert seen.scores == ScoreRange(0.5, 0.5)


def test_cancelled_nodes_count_once_they_scored() -> None:
    seen = survey(tree(node(0, None, 0.5), node(1, 0, status=CANCELLED), node(2, 0, 0.7, status=CANCELLED)))
    assert seen.subtrees[1] == SubtreeStatistics()
    assert seen.subtrees[0].total == 2
    assert seen.scores == ScoreRange(0.5, 0.7)


def test_pruned_nodes_still_count() -> None:
    seen = survey(tree(node(0, None, 0.5), node(1, 0, status=FAILED, pruned=True), node(2, 0, 0.6, repairs=1)))
    assert (seen.subtrees[0].total, seen.subtrees[0].failed) == (3, 1)


def test_several_roots() -> None:
    seen = survey(tree(node(0, None, status=FAILED, pruned=True), node(1, None, 0.5, repairs=0)))
    assert seen.roots == (0, 1)


def chain(size: int) -> Tree:
    return Tree(tuple(node(i, i - 1 if i else None, (i % 7) / 7, kind=SCRATCH) for i in range(size)))


def star(size: int) -> Tree:
    return Tree(tuple(node(i, 0 if i else None, (i % 7) / 7, kind=SCRATCH) for i in range(size)))


def calls_of(function: Callable[[], Any]) -> int:
    count = 0

    def counting(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(counting)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("shape", [chain, star])
@pytest.mark.parametrize("question", [select, terminal_nodes])
def test_work_grows_with_the_tree_and_not_with_its_square(
    shape: Callable[[int], Tree], question: Callable[[Tree, Rules], Any]
) -> None:
    small, large = (calls_of(lambda size=size: question(shape(size), Rules())) for size in (500, 2000))
    assert large < 5 * small


def test_ten_thousand_nodes_deep() -> None:
    decision = select(chain(10_000), Rules())
    assert isinstance(decision, Expansion)
    assert survey(chain(10_000)).subtrees[0].total == 10_000
