"""What the paper's text says of its best strategies, counted again, and where its text alone cannot be counted."""

from __future__ import annotations

import json
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
    assert TOGETHER.classes[ParameterClass.REGULARIZATION].reversals == 8


@pytest.mark.parametrize(
    ("task", "parameter", "reversals"),
    [
        ("PaperSearchQA", "learning_rate", 1),
        ("PaperSearchQA", "temperature", 1),
        ("SSMR-Bench", "learning_rate", 2),
        ("SSMR-Bench", "temperature", 1),
        ("SSMR-Bench", "kl_coefficient", 2),
        ("WildSci", "learning_rate", 1),
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
        ("WildSci", "kl_coefficient"),
    ],
)
def test_reversals_that_the_text_does_not_show(task: str, parameter: str) -> None:
    """The paper states a reversal of each; its text tells too few of their moves to see one."""
    moves = STRATEGIES[task].of(parameter)
    assert moves.reversals == 0
    assert moves.unknown >= 2


def test_how_often_kl_changed_cannot_be_counted_from_the_text() -> None:
    """The paper: in 12 of 13 transitions. Six are told one by one, the other seven stand in its tables 8, 9 and 11."""
    assert TOGETHER.changed_in["kl_coefficient"] == 6
    assert TOGETHER.unknown_in["kl_coefficient"] == 7
    assert STRATEGIES["SSMR-Bench"].of("kl_coefficient").unknown == 0


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
