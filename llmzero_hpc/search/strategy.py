"""Strategies: which phases led to a checkpoint, what was measured along them, how their hyperparameters moved.

A strategy follows `Node.resume`, where weights come from; `Node.parent` is only a place in the search tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass, Scalar
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import CheckpointReference, Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.tree import Tree


@dataclass(frozen=True, slots=True)
class StrategyPhase:
    """The part of a phase that a strategy uses: its steps from `first_step` to `last_step`, inclusive.

    Steps after `last_step` were trained but not resumed from. A phase that has not reported a step yet is empty:
    `last_step` is `first_step - 1`.
    """

    node: Node
    first_step: int
    last_step: int


def path(tree: Tree, node_id: int, step: int | None = None) -> tuple[StrategyPhase, ...]:
    """The strategy that ends in a node, from its from-scratch phase on.

    Args:
        tree: where the nodes are.
        node_id: the last phase.
        step: where the strategy ends in it; None takes all that counts of it so far (until the stop decision, if any).

    Raises:
        ValueError: `step` lies before the first step of the last phase.
    """
    node = tree[node_id]
    last_step = _steps_that_count(node) if step is None else step
    if step is not None and step < node.first_step:
        raise ValueError(f"node {node_id} begins at step {node.first_step}, after step {step}")
    phases = [StrategyPhase(node, node.first_step, last_step)]
    while node.resume is not None:
        last_step, node = node.resume.step, tree[node.resume.node]
        phases.append(StrategyPhase(node, node.first_step, last_step))
    return tuple(reversed(phases))


def concatenated(phases: Iterable[tuple[StrategyPhase, Series]]) -> Series:
    """One series of a strategy from the series of its phases, each cut where the next one resumes."""
    rows: list[MetricRow] = []
    for phase, series in phases:
        rows.extend(row for row in series.rows if phase.first_step <= row.step <= phase.last_step)
    return Series(tuple(rows))


def problems_in_strategy(tree: Tree, configuration: Configuration, resume: CheckpointReference | None) -> list[str]:
    """Why a phase with this configuration cannot resume there; empty when it can, and always from scratch.

    The checkpoint must be complete and validated, and fixed hyperparameters (LoRA rank, alpha, target modules) are
    those of every phase before: the adapter's shape depends on them (section 3.3).
    """
    if resume is None:
        return []
    found = []
    if resume.step not in {checkpoint.step for checkpoint in tree[resume.node].checkpoints}:
        found.append(f"node {resume.node} has no checkpoint of step {resume.step}")
    if tree[resume.node].is_leaf:
        found.append(f"the strategy of node {resume.node} has used up its compute")
    for phase in path(tree, resume.node):
        if phase.node.configuration is not None:
            found.extend(
                f"{name}: {configuration.value(name)!r} differs from {phase.node.configuration.value(name)!r} of node"
                f" {phase.node.id}, and is fixed along a strategy"
                for name in phase.node.configuration.fixed_changes(configuration)
            )
    return found


def valid_in_strategy(tree: Tree, configuration: Configuration, resume: CheckpointReference | None) -> bool:
    """Whether a phase with this configuration can resume there."""
    return not problems_in_strategy(tree, configuration, resume)


def turns(moves: Iterable[int | None]) -> int:
    """Changes of direction among moves (1 up, -1 down); 0 and None are passed over."""
    return sum(before != after for before, after in pairwise(move for move in moves if move))


@dataclass(frozen=True, slots=True)
class ParameterTrajectory:
    """The values of one hyperparameter along a strategy, phase by phase."""

    name: str
    values: tuple[Scalar, ...]

    @property
    def parameter_class(self) -> ParameterClass:
        """Its class in the table."""
        return HYPERPARAMETERS[self.name].parameter_class

    @property
    def changes(self) -> int:
        """Transitions that change it."""
        return sum(before != after for before, after in pairwise(self.values))

    @property
    def reversals(self) -> int:
        """Turns from rising to falling or back (section 4.3.2); plateaus between do not hide one, words have none."""
        numbers = [value for value in self.values if not isinstance(value, str)]
        return turns((after > before) - (after < before) for before, after in pairwise(numbers))


@dataclass(frozen=True, slots=True)
class ClassTotals:
    """Changes and direction reversals of all hyperparameters of one class along a strategy."""

    changes: int
    reversals: int


def trajectories(phases: Sequence[StrategyPhase]) -> tuple[ParameterTrajectory, ...]:
    """How each hyperparameter of the table moved along a strategy; phases without a configuration are left out."""
    configurations = [phase.node.configuration for phase in phases if phase.node.configuration is not None]
    return tuple(
        ParameterTrajectory(name, tuple(configuration.value(name) for configuration in configurations))
        for name in HYPERPARAMETERS
    )


def totals(moved: Iterable[ParameterTrajectory]) -> dict[ParameterClass, ClassTotals]:
    """Changes and reversals of each class: capacity is expected to accumulate, regularization to oscillate."""
    moved = tuple(moved)
    return {
        parameter_class: ClassTotals(
            changes=sum(item.changes for item in moved if item.parameter_class is parameter_class),
            reversals=sum(item.reversals for item in moved if item.parameter_class is parameter_class),
        )
        for parameter_class in ParameterClass
    }


def _steps_that_count(node: Node) -> int:
    last_step = node.first_step - 1 if node.last_step is None else node.last_step
    return last_step if node.stop is None else min(last_step, node.stop.step)
