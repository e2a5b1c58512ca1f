"""Structures, curves, intervals and comparisons on values whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_trees import SCRATCH, STOPPED, node, tree

from llmzero_hpc.analysis.bootstrap import estimate, paired, ratio
from llmzero_hpc.analysis.comparison import Run, compared, run_of
from llmzero_hpc.analysis.curves import Point, best_so_far, cost_to_reach, score_at, total_cost
from llmzero_hpc.analysis.structure import structure_from_moves, structure_of_best, summary, transitions_of
from llmzero_hpc.analysis.wall import makespan
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


def test_what_a_method_spends_until_an_equal_score() -> None:
    """By hand: the lower of the two best is 0.7 on seed 0 (20 against 60) and 0.6 on seed 1 (10 against 20)."""
    found = compared(
        [
            run("full", 0, [(10, 0.5), (20, 0.8)], is_static=False),
            run("full", 1, [(10, 0.6)], is_static=False),
            run("without", 0, [(30, 0.6), (60, 0.7)], is_static=False),
            run("without", 1, [(20, 0.65)], is_static=False),
        ],
        "full",
    )
    [pair] = found.pairs
    assert pair.speed is not None
    assert pair.speed.value == pytest.approx((20 + 10) / (60 + 20))
    assert pair.compute is not None
    assert pair.compute.value == pytest.approx((60 + 20) / (20 + 10))
    assert pair.compute.low == pytest.approx(20 / 10)
    assert pair.compute.high == pytest.approx(60 / 20)
    assert pair.wall is None, "nothing is known of it"


def test_a_ratio_of_nothing_is_none() -> None:
    assert ratio([1.0], [0.0]) is None
    assert ratio([], []) is None
    one = ratio([3.0], [2.0])
    assert one is not None
    assert (one.value, one.low, one.high, one.count) == (1.5, 1.5, 1.5, 1)
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def lasting(*seconds: float, resumes: dict[int, int]) -> Tree:
    """Phases that cost so much; `resumes` says which resumed which."""
    return tree(
        *(
            replace(
                node(number, 0 if number else None, 0.5, kind=SCRATCH),
                resume=CheckpointReference(resumes[number], 10) if number in resumes else None,
                attempts=(Attempt(1, "job", 0.0, device_seconds=cost),),
            )
            for number, cost in enumerate(seconds)
        )
    )


def test_phases_one_after_another_and_side_by_side() -> None:
    """By hand, on two places: 0 until 10; 1 and 2 from there, until 30 and 15; 3 needs 1: 30 to 70; then 4."""
    searched = lasting(10, 20, 5, 40, 5, resumes={1: 0, 2: 0, 3: 1})
    assert makespan(searched, 1) == 80.0
    assert makespan(searched, 2) == 70.0
    assert makespan(searched, 4) == 70.0, "what resumes another waits for it, however many places there are"
    free = lasting(10, 20, 5, 40, 5, resumes={})
    assert makespan(free, 2) == 55.0, "0 to 10, 1 to 20, 2 from 10 to 15, 3 from 15 to 55, 4 from 20 to 25"
    assert makespan(free, 5) == 40.0
    assert makespan(free, 2, devices=5) == 11.0
    assert makespan(Tree(), 1) == 0.0
    with pytest.raises(ValueError, match="needs a place"):
        makespan(free, 0)
