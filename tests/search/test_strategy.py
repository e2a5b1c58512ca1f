"""Strategies, what was measured along them, and how hyperparameters moved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_trees import node, tree

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import Checkpoint, CheckpointReference, NodeStatus, StopDecision
from llmzero_hpc.search.strategy import (
    ClassTotals,
    ParameterTrajectory,
    StrategyPhase,
    concatenated,
    path,
    problems_in_strategy,
    totals,
    trajectories,
    valid_in_strategy,
)

if TYPE_CHECKING:
    from llmzero_hpc.search.tree import Tree


def three_phases() -> Tree:
    """0 from scratch to step 30; 1 resumes it at 20 and runs to 50; 2 resumes that at 40. Places are other ones."""
    return tree(
        replace(
            node(0, None),
            last_step=30,
            configuration=Configuration(),
            checkpoints=(Checkpoint(10, 0.3), Checkpoint(20, 0.5), Checkpoint(30, 0.4)),
        ),
        replace(
            node(1, 0),
            resume=CheckpointReference(0, 20),
            last_step=50,
            configuration=Configuration(learning_rate=3e-5, rollouts=16),
            checkpoints=(Checkpoint(40, 0.6),),
        ),
        replace(
            node(2, 0),
            resume=CheckpointReference(1, 40),
            last_step=60,
            configuration=Configuration(learning_rate=6e-5, rollouts=16, kl_coefficient=2e-3),
            checkpoints=(Checkpoint(60, 0.7),),
        ),
    )


def spans(phases: tuple[StrategyPhase, ...]) -> list[tuple[int, int, int]]:
    return [(phase.node.id, phase.first_step, phase.last_step) for phase in phases]


def test_a_path_follows_weights_and_not_places() -> None:
    assert spans(path(three_phases(), 2)) == [(0, 1, 20), (1, 21, 40), (2, 41, 60)]


def test_a_path_may_end_at_any_step_of_the_last_phase() -> None:
    assert spans(path(three_phases(), 1, 30)) == [(0, 1, 20), (1, 21, 30)]
    with pytest.raises(ValueError, match="node 1 begins at step 21, after step 20"):
        path(three_phases(), 1, 20)


def test_a_phase_without_a_step_is_empty() -> None:
    grown = three_phases().adding(replace(node(3, 2), status=NodeStatus.PENDING, resume=CheckpointReference(2, 60)))
    assert spans(path(grown, 3))[-1] == (3, 61, 60)


def test_steps_after_a_stop_decision_do_not_count() -> None:
    grown = three_phases()
    grown = grown.replacing(replace(grown[2], stop=StopDecision(55, "flat", "playbook", 0.0)))
    assert spans(path(grown, 2))[-1] == (2, 41, 55)
    grown = grown.replacing(replace(grown[2], stop=StopDecision(65, "flat", "playbook", 0.0)))
    assert spans(path(grown, 2))[-1] == (2, 41, 60)


def test_a_scratch_phase_is_a_strategy_of_its_own_wherever_it_hangs() -> None:
    grown = three_phases().adding(replace(node(3, 2, 0.2), last_step=10))
    assert spans(path(grown, 3)) == [(3, 1, 10)]


def test_series_are_cut_where_the_next_phase_resumes() -> None:
    def series(first: int, last: int, value: float) -> Series:
        return Series(tuple(MetricRow(step, {"kl": value}) for step in range(first, last + 1, 10)))

    phases = path(three_phases(), 2)
    whole = concatenated(zip(phases, (series(10, 30, 0.0), series(30, 50, 1.0), series(50, 60, 2.0)), strict=True))
    assert whole.points("kl") == ((10, 0.0), (20, 0.0), (30, 1.0), (40, 1.0), (50, 2.0), (60, 2.0))
    # Rows before a phase's first step are not its own.
    assert concatenated([(phases[1], series(10, 50, 1.0))]).points("kl") == ((30, 1.0), (40, 1.0))


def test_a_strategy_keeps_its_fixed_parameters() -> None:
    grown, there = three_phases(), CheckpointReference(1, 40)
    assert valid_in_strategy(grown, Configuration(learning_rate=1e-4, rollouts=4), there)
    wider = Configuration(lora_rank=128)
    assert not valid_in_strategy(grown, wider, there)
    assert problems_in_strategy(grown, wider, there) == [
        "lora_rank: 128 differs from 64 of node 0, and is fixed along a strategy",
        "lora_rank: 128 differs from 64 of node 1, and is fixed along a strategy",
    ]
    assert valid_in_strategy(grown, wider, None)


def test_a_strategy_resumes_only_from_checkpoints_that_are_there() -> None:
    assert problems_in_strategy(three_phases(), Configuration(), CheckpointReference(1, 30)) == [
        "node 1 has no checkpoint of step 30"
    ]


@pytest.mark.parametrize(
    ("name", "values", "changes", "reversals"),
    [
        ("learning_rate", (5e-5, 3e-5, 5e-5, 3e-5), 3, 2),  # SSMR, table 10: down, up, down
        ("kl_coefficient", (0.001, 0.002, 0.001, 0.002), 3, 2),
        ("rollouts", (4, 8, 8, 16), 2, 0),
        ("rollouts", (8,), 0, 0),
        ("temperature", (1.0, 1.1, 1.1, 1.0), 2, 1),  # a plateau hides no reversal
        ("advantage_normalization", (False, True, False), 2, 1),
        ("target_modules", ("q_proj", "all-linear", "q_proj"), 2, 0),
    ],
)
def test_changes_and_reversals(name: str, values: tuple[float, ...], changes: int, reversals: int) -> None:
    trajectory = ParameterTrajectory(name, values)
    assert (trajectory.changes, trajectory.reversals) == (changes, reversals)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_what_only_rises_never_reverses_and_a_mirror_reverses_alike(values: list[int]) -> None:
    assert ParameterTrajectory("rollouts", tuple(sorted(values))).reversals == 0
    mirrored = ParameterTrajectory("rollouts", tuple(-value for value in values))
    assert ParameterTrajectory("rollouts", tuple(values)).reversals == mirrored.reversals


def test_totals_of_each_class() -> None:
    moved = trajectories(path(three_phases(), 2))
    assert [item.name for item in moved] == list(HYPERPARAMETERS)
    assert {item.name: item.values for item in moved}["learning_rate"] == (5e-5, 3e-5, 6e-5)
    assert totals(moved) == {
        ParameterClass.CAPACITY: ClassTotals(changes=1, reversals=0),
        ParameterClass.REGULARIZATION: ClassTotals(changes=3, reversals=1),
        ParameterClass.OTHER: ClassTotals(changes=0, reversals=0),
        ParameterClass.FIXED: ClassTotals(changes=0, reversals=0),
    }


def test_phases_without_a_configuration_move_nothing() -> None:
    grown = three_phases().adding(replace(node(3, 2), status=NodeStatus.PLANNED, resume=CheckpointReference(2, 60)))
    assert all(len(item.values) == 3 for item in trajectories(path(grown, 3)))
