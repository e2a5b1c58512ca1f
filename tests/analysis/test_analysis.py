"""Structures, curves, intervals and comparisons on values whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_trees import SCRATCH, STOPPED, node, tree

from llmzero_hpc.analysis.bootstrap import estimate, paired
from llmzero_hpc.analysis.comparison import Run, compared, run_of
from llmzero_hpc.analysis.curves import Point, best_so_far, cost_to_reach, score_at, total_cost
from llmzero_hpc.analysis.structure import structure_from_moves, structure_of_best, summary, transitions_of
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import ParameterClass
from llmzero_hpc.search.node import Attempt, Checkpoint, CheckpointReference
from llmzero_hpc.search.tree import Evaluation, Tree

START = Configuration()
CHAIN = (
    (START, 0.4),
    (START.changed(learning_rate=1e-4, max_response_length=7168, epochs=2.0), 0.5),
    (START.changed(learning_rate=3e-5, kl_coefficient=2e-3, temperature=0.9, max_response_length=8192), 0.7),
)


def trained(seconds: float = 100.0) -> Tree:
    """Three phases of ten steps, each from the last checkpoint of the one before, and one that was stopped."""
    phases = []
    for number, (configuration, score) in enumerate(CHAIN):
        first = 10 * number
        phases.append(
            replace(
                node(number, number - 1 if number else None),
                configuration=configuration,
                resume=CheckpointReference(number - 1, first) if number else None,
                checkpoints=(Checkpoint(first + 5, score - 0.1), Checkpoint(first + 10, score)),
                last_step=first + 10,
                attempts=(Attempt(1, "job", 0.0, device_seconds=seconds),),
            )
        )
    stopped = replace(
        node(3, 0, status=STOPPED, kind=SCRATCH),
        configuration=START,
        checkpoints=(Checkpoint(5, 0.2),),
        last_step=7,
        attempts=(Attempt(1, "job", 0.0, device_seconds=70.0),),
    )
    return tree(*phases, stopped)


def test_the_structure_of_a_search() -> None:
    found = structure_of_best("s", trained())
    assert found is not None
    assert found.of("learning_rate").moves == (1, -1)
    assert found.of("learning_rate").reversals == 1
    assert found.of("max_response_length").reversals == 0
    assert found.of("learning_rate").values == (5e-5, 1e-4, 3e-5)
    first, second = found.transitions
    assert first.changed == ("max_response_length", "learning_rate"), "epochs follow from the budget"
    assert not first.is_coordinated
    assert second.is_coordinated
    assert found.highest_gain == second
    assert second.gain == pytest.approx(0.2)


def test_a_search_without_a_score_has_no_structure() -> None:
    assert structure_of_best("s", tree(node(0, None))) is None


def test_every_transition_of_a_search() -> None:
    found = transitions_of(trained())
    assert [(one.id, transition.position) for one, transition in found] == [(1, 1), (2, 2)]
    assert found[0][1].gain == pytest.approx(0.1)


def test_many_searches_together() -> None:
    one = structure_of_best("s", trained())
    assert one is not None
    both = summary([one, one])
    assert (both.strategies, both.transitions, both.improved) == (2, 4, 4)
    assert both.changed_in["learning_rate"] == 4
    assert both.classes[ParameterClass.REGULARIZATION].reversals == 2
    assert both.classes[ParameterClass.CAPACITY].reversals == 0
    assert both.coordinated_gain == pytest.approx(0.2)
    assert both.other_gain == pytest.approx(0.1)


def test_moves_must_fit_the_transitions() -> None:
    with pytest.raises(ValueError, match="rollouts has 1 moves for 2 transitions"):
        structure_from_moves("s", {"rollouts": [1]}, [0.1, 0.2, 0.3])


def test_compute_against_score() -> None:
    curve = best_so_far(trained())
    assert [point.cost for point in curve] == [50.0, 100.0, 200.0, 250.0, 300.0]
    assert [point.score for point in curve] == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7])
    assert total_cost(trained()) == 370.0, "what was stopped is paid for"
    assert score_at(curve, 49.0) is None
    assert score_at(curve, 240.0) == 0.5
    assert cost_to_reach(curve, 0.45) == 200.0
    assert cost_to_reach(curve, 0.9) is None


def test_another_cost_than_the_clock_s() -> None:
    curve = best_so_far(trained(), cost=lambda phase: 2.0 if phase.id == 0 else 1.0)
    assert [point.cost for point in curve] == [1.0, 2.0, 3.0, 3.5, 4.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_an_interval_holds_its_mean(values: list[float]) -> None:
    found = estimate(values, resamples=200)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_a_clear_difference_and_none() -> None:
    clear = paired([0.8, 0.82, 0.85, 0.81], [0.7, 0.71, 0.73, 0.72])
    assert clear.is_clear
    assert clear.wins == 4
    assert clear.p_value == 0.0
    assert clear.difference.mean == pytest.approx(0.105)
    assert clear.effect_size == pytest.approx(0.105 / clear.difference.deviation)
    assert clear.effect_size > 5
    none = paired([0.8, 0.7, 0.8, 0.7], [0.7, 0.8, 0.7, 0.8])
    assert not none.is_clear
    assert none.p_value > 0.5
    assert none.effect_size == pytest.approx(0.0)


def test_one_seed_shows_nothing() -> None:
    one = paired([0.9], [0.1])
    assert not one.is_clear
    assert one.p_value == 1.0
    assert one.effect_size is None


def test_pairs_need_partners() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="no value"):
        paired([], [])


def run(
    method: str, seed: int, points: list[tuple[float, float]], *, is_static: bool, test: float | None = None
) -> Run:
    curve = tuple(Point(*point) for point in points)
    return Run(method, seed, is_static, len(points), points[-1][0], points[-1][1], test, curve, is_over=True)


def test_methods_against_each_other() -> None:
    runs = [
        run("tree", 0, [(10, 0.5), (20, 0.8)], is_static=False, test=0.79),
        run("tree", 1, [(10, 0.4), (40, 0.9)], is_static=False, test=0.88),
        run("random", 0, [(20, 0.6), (40, 0.7)], is_static=True, test=0.69),
        run("random", 1, [(40, 0.6)], is_static=True, test=0.6),
        run("grid", 0, [(40, 0.75)], is_static=True, test=0.7),
    ]
    found = compared(runs, "tree")
    table = {row.method: row for row in found.methods}
    assert table["tree"].validation is not None
    assert table["tree"].validation.mean == pytest.approx(0.85)
    assert (table["tree"].reached, table["tree"].cost_to_reach) == (2, 30.0), "0.75 at 20, 0.6 at 40"
    assert (table["random"].reached, table["random"].cost_to_reach) == (1, 40.0)
    assert [pair.other for pair in found.pairs] == ["random", "grid"]
    assert found.pairs[0].validation is not None
    assert found.pairs[0].validation.difference.mean == pytest.approx(0.2)
    assert found.pairs[1].validation is not None
    assert found.pairs[1].validation.difference.count == 1
    band = next(band for band in found.bands if band.method == "tree")
    assert band.estimates[0] is None
    assert band.estimates[-1] is not None
    assert band.estimates[-1].mean == pytest.approx(0.85)
    assert found.is_over


def test_a_run_is_read_from_its_tree() -> None:
    scored = replace(trained(), evaluation=Evaluation(CheckpointReference(2, 30), "test", score=0.66))
    found = run_of(scored, method="tree", seed=3, is_static=False, is_over=True)
    assert (found.phases, found.cost, found.validation, found.test) == (4, 370.0, 0.7, 0.66)
    empty = run_of(Tree(), method="tree", seed=3, is_static=False, is_over=False)
    assert (empty.validation, empty.curve) == (None, ())
    assert not compared([empty], "tree").is_over
