"""What the paper's text says of its best strategies, counted again, and where its text alone cannot be counted."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from llmzero_hpc.analysis.structure import Structure, structure_from_moves, summary
from llmzero_hpc.search.hyperparameters import ParameterClass

PUBLISHED: dict[str, Any] = json.loads(
    Path(__file__).with_name("published_strategies.json").read_text(encoding="utf-8")
)["strategies"]
STRATEGIES: dict[str, Structure] = {
    name: structure_from_moves(name, told["moves"], told["validation"]) for name, told in PUBLISHED.items()
}
TOGETHER = summary(STRATEGIES.values())


def test_thirteen_transitions() -> None:
    assert (TOGETHER.strategies, TOGETHER.transitions) == (4, 13)


def test_eleven_of_thirteen_transitions_do_not_lower_the_score() -> None:
    """The paper counts 11 improvements. Ten scores rise; the eleventh is .408 after .408."""
    assert (TOGETHER.improved, TOGETHER.unchanged, TOGETHER.worsened) == (10, 1, 2)


def test_capacity_never_turns() -> None:
    capacity = TOGETHER.classes[ParameterClass.CAPACITY]
    assert capacity.rises == 3
    assert capacity.falls == 0
    assert capacity.reversals == 0


def test_regularization_turns() -> None:
    regularization = TOGETHER.classes[ParameterClass.REGULARIZATION]
    assert (regularization.reversals, regularization.reversing) == (9, 7)


@pytest.mark.parametrize(
    ("task", "regularization"), [("ChemCoT", 0), ("PaperSearchQA", 2), ("SSMR-Bench", 5), ("WildSci", 2)]
)
def test_reversals_of_each_class_on_each_task(task: str, regularization: int) -> None:
    """Of ChemCoT too few moves are told to see one turn."""
    classes = summary([STRATEGIES[task]]).classes
    assert classes[ParameterClass.CAPACITY].reversals == 0
    assert classes[ParameterClass.REGULARIZATION].reversals == regularization


@pytest.mark.parametrize(
    ("task", "parameter", "reversals"),
    [
        ("PaperSearchQA", "learning_rate", 1),
        ("PaperSearchQA", "temperature", 1),
        ("SSMR-Bench", "learning_rate", 2),
        ("SSMR-Bench", "temperature", 1),
        ("SSMR-Bench", "kl_coefficient", 2),
        ("WildSci", "learning_rate", 1),
        ("WildSci", "kl_coefficient", 1),
    ],
)
def test_one_or_two_reversals_where_the_text_tells_the_moves(task: str, parameter: str, reversals: int) -> None:
    """Section 4.3.2: learning rate and temperature turn once or twice on every task, KL on three of four."""
    assert STRATEGIES[task].of(parameter).reversals == reversals


@pytest.mark.parametrize(
    ("task", "parameter"),
    [
        ("ChemCoT", "learning_rate"),
        ("ChemCoT", "temperature"),
        ("ChemCoT", "kl_coefficient"),
        ("WildSci", "temperature"),
    ],
)
def test_reversals_that_the_text_does_not_show(task: str, parameter: str) -> None:
    """The paper states a reversal of each; its text tells too few of their moves to see one."""
    moves = STRATEGIES[task].of(parameter)
    assert moves.reversals == 0
    assert moves.unknown >= 2


def test_how_often_kl_changed_cannot_be_counted_from_the_text() -> None:
    """The paper: in 12 of 13 transitions. Seven are told one by one, the other six stand in its tables 8, 9 and 11."""
    assert TOGETHER.changed_in["kl_coefficient"] == 7
    assert TOGETHER.unknown_in["kl_coefficient"] == 6
    assert STRATEGIES["SSMR-Bench"].of("kl_coefficient").changes == 3, "where all is told, it changed each time"


def test_kl_is_the_parameter_that_is_told_to_change_most_often_but_for_the_learning_rate() -> None:
    """The paper: KL is. Of the learning rate the text tells more transitions, of KL as many as it changed in."""
    told = {name: count for name, count in TOGETHER.changed_in.items() if count}
    assert sorted(told, key=lambda name: -told[name])[:2] == ["learning_rate", "kl_coefficient"]
    unchanged = TOGETHER.transitions - TOGETHER.changed_in["kl_coefficient"] - TOGETHER.unknown_in["kl_coefficient"]
    assert unchanged == 0, "no sentence tells of a transition that left it"


def test_kl_on_paper_search_qa_turns_in_no_reading() -> None:
    """It rises throughout (section 4.3.1); in which of the three transitions is in Table 9."""
    assert STRATEGIES["PaperSearchQA"].of("kl_coefficient").unknown == 3
    for moves in product((0, 1), repeat=3):
        read = structure_from_moves("s", {"kl_coefficient": moves}, PUBLISHED["PaperSearchQA"]["validation"])
        assert read.of("kl_coefficient").reversals == 0


@pytest.mark.parametrize(("task", "falls"), [("PaperSearchQA", 0), ("SSMR-Bench", 0), ("WildSci", 1)])
def test_test_scores_rise_along_the_best_paths_but_for_one_fall_that_is_made_up_for(task: str, falls: int) -> None:
    """Section 4.3.2, diagnosis quality; those of ChemCoT are not in the text."""
    gains = [one.gain or 0.0 for one in structure_from_moves(task, {}, PUBLISHED[task]["test"]).transitions]
    assert sum(gain < 0 for gain in gains) == falls
    assert gains[-1] >= 0
    assert "test" not in PUBLISHED["ChemCoT"]


@pytest.mark.parametrize(("task", "position", "changed"), [("ChemCoT", 4, 4), ("SSMR-Bench", 2, 3), ("WildSci", 3, 4)])
def test_the_transition_with_the_highest_gain_is_coordinated(task: str, position: int, changed: int) -> None:
    best = STRATEGIES[task].highest_gain
    assert best is not None
    assert (best.position, len(best.changed)) == (position, changed)
    assert best.is_coordinated


def test_on_paper_search_qa_the_text_names_two_parameters_of_the_highest_gain() -> None:
    """The third is KL, which rises from phase to phase; how far at each is in Table 9."""
    best = STRATEGIES["PaperSearchQA"].highest_gain
    assert best is not None
    assert (best.position, best.changed) == (1, ("learning_rate", "temperature"))
    assert best.gain == pytest.approx(0.020)
    assert TOGETHER.highest_is_coordinated == 3


def test_gains_of_the_transitions_of_ssmr() -> None:
    gains = [one.gain for one in STRATEGIES["SSMR-Bench"].transitions]
    assert gains == [pytest.approx(-0.028), pytest.approx(0.158), pytest.approx(0.040)]
