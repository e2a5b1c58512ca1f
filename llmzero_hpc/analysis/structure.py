"""The structure of strategies (section 4.3.2): what moved in which direction, what turned, what it gained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass, Scalar
from llmzero_hpc.search.strategy import path, turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.strategy import StrategyPhase
    from llmzero_hpc.search.tree import Tree

COORDINATED = 3
"""Parameters that a coordinated transition changes at least."""
CONSEQUENCES = frozenset({"epochs", "mini_batches"})
"""They follow from the budget and the batch size, so that changing them is no decision of its own."""


@dataclass(frozen=True, slots=True)
class Moves:
    """How one hyperparameter moved, transition by transition: 1 up, -1 down, 0 not at all, None not known."""

    name: str
    moves: tuple[int | None, ...]
    values: tuple[Scalar | None, ...] = ()
    """Phase by phase, where they are known."""

    @property
    def parameter_class(self) -> ParameterClass:
        """Its class in the table."""
        return HYPERPARAMETERS[self.name].parameter_class

    @property
    def changes(self) -> int:
        """Transitions that are known to change it."""
        return sum(move not in {0, None} for move in self.moves)

    @property
    def unknown(self) -> int:
        """Transitions of which it is not known."""
        return self.moves.count(None)

    @property
    def reversals(self) -> int:
        """Turns from rising to falling or back; plateaus hide none. At least so many where moves are not known."""
        return turns(self.moves)


@dataclass(frozen=True, slots=True)
class Transition:
    """From one phase to the next. `gain` is the validation score handed on minus the one taken over."""

    position: int
    """1 for the first transition."""
    changed: tuple[str, ...]
    """Hyperparameters that are known to change, consequences left out, in the order of the table."""
    gain: float | None

    @property
    def is_coordinated(self) -> bool:
        """It changes several parameters at once."""
        return len(self.changed) >= COORDINATED


@dataclass(frozen=True, slots=True)
class Structure:
    """One strategy."""

    name: str
    parameters: tuple[Moves, ...]
    transitions: tuple[Transition, ...]

    @property
    def highest_gain(self) -> Transition | None:
        """The transition that gained most; the earlier of equals."""
        known = [one for one in self.transitions if one.gain is not None]
        return max(known, key=lambda one: (one.gain or 0.0, -one.position), default=None)

    def of(self, parameter: str) -> Moves:
        """How one hyperparameter moved; raises KeyError for one that is not there."""
        return {moves.name: moves for moves in self.parameters}[parameter]


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """All hyperparameters of one class over all strategies."""

    parameters: int
    """Parameters that changed at all, counted once a strategy."""
    changes: int
    rises: int
    falls: int
    reversals: int
    reversing: int
    """Parameters that turned at least once, counted once a strategy."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What strategies have in common."""

    strategies: int
    transitions: int
    improved: int
    unchanged: int
    worsened: int
    changed_in: Mapping[str, int]
    """Transitions that are known to change each hyperparameter."""
    unknown_in: Mapping[str, int]
    """Transitions of which it is not known."""
    classes: Mapping[ParameterClass, ClassSummary]
    coordinated: int
    """Transitions that change several parameters at once."""
    coordinated_gain: float | None
    """Their mean gain."""
    other_gain: float | None
    """The mean gain of the rest."""
    highest_is_coordinated: int
    """Strategies whose best transition is a coordinated one."""


def structure_from_moves(
    name: str, moves: Mapping[str, Sequence[int | None]], scores: Sequence[float | None]
) -> Structure:
    """The structure of a strategy of which only directions are known; hyperparameters that are left out are not."""
    count = len(scores) - 1
    for parameter, known in moves.items():
        if len(known) != count:
            raise ValueError(f"{parameter} has {len(known)} moves for {count} transitions")
    found = tuple(Moves(row, tuple(moves.get(row, (None,) * count))) for row in HYPERPARAMETERS)
    return Structure(name, found, _transitions(found, scores))


def structure_of(name: str, phases: Sequence[Mapping[str, Scalar]], scores: Sequence[float | None]) -> Structure:
    """The structure of a strategy from the values and the validation score of each phase."""
    found = tuple(
        Moves(
            row,
            tuple(_move(before[row], after[row]) for before, after in pairwise(phases)),
            tuple(values[row] for values in phases),
        )
        for row in HYPERPARAMETERS
    )
    return Structure(name, found, _transitions(found, scores))


def structure_of_best(name: str, tree: Tree) -> Structure | None:
    """The structure of the best strategy of a search; None without a validation score."""
    node = tree.best()
    if node is None or node.best is None:
        return None
    phases = [part for part in path(tree, node.id, node.best.step) if part.node.configuration is not None]
    values = [part.node.configuration.values() for part in phases if part.node.configuration is not None]
    return structure_of(name, values, [_score(part) for part in phases])


def transitions_of(tree: Tree) -> tuple[tuple[Node, Transition], ...]:
    """Every phase of a search that resumed another: what it changed, and its best score minus the one it took over."""
    found = []
    for node in tree:
        if node.resume is None or node.configuration is None:
            continue
        source = tree[node.resume.node]
        if source.configuration is None:
            continue
        taken = next((point.score for point in source.checkpoints if point.step == node.resume.step), None)
        gain = None if taken is None or node.score is None else node.score - taken
        changed = tuple(
            name
            for name in source.configuration.differences(node.configuration)
            if name in HYPERPARAMETERS and name not in CONSEQUENCES
        )
        found.append((node, Transition(len(path(tree, node.id)) - 1, changed, gain)))
    return tuple(found)


def summary(structures: Iterable[Structure]) -> Summary:
    """What strategies have in common; gains of equal size to the last digit count as unchanged."""
    structures = tuple(structures)
    transitions = [one for structure in structures for one in structure.transitions]
    moves = [one for structure in structures for one in structure.parameters]
    gains = [one.gain for one in transitions if one.gain is not None]
    coordinated = [one for one in transitions if one.is_coordinated]
    bests = [structure.highest_gain for structure in structures]
    return Summary(
        strategies=len(structures),
        transitions=len(transitions),
        improved=sum(gain > 0 for gain in gains),
        unchanged=sum(gain == 0 for gain in gains),
        worsened=sum(gain < 0 for gain in gains),
        changed_in={name: sum(one.changes for one in moves if one.name == name) for name in HYPERPARAMETERS},
        unknown_in={name: sum(one.unknown for one in moves if one.name == name) for name in HYPERPARAMETERS},
        classes={kind: _of_class([one for one in moves if one.parameter_class is kind]) for kind in ParameterClass},
        coordinated=len(coordinated),
        coordinated_gain=_mean(coordinated),
        other_gain=_mean([one for one in transitions if not one.is_coordinated]),
        highest_is_coordinated=sum(best is not None and best.is_coordinated for best in bests),
    )


def _transitions(parameters: Sequence[Moves], scores: Sequence[float | None]) -> tuple[Transition, ...]:
    return tuple(
        Transition(
            position,
            tuple(one.name for one in parameters if one.moves[position - 1] and one.name not in CONSEQUENCES),
            None if before is None or after is None else after - before,
        )
        for position, (before, after) in enumerate(pairwise(scores), start=1)
    )


def _move(before: Scalar, after: Scalar) -> int:
    """Words move up when they change: they have no direction, and no turn."""
    if isinstance(before, str) or isinstance(after, str):
        return int(before != after)
    return (after > before) - (after < before)


def _of_class(moves: Sequence[Moves]) -> ClassSummary:
    return ClassSummary(
        parameters=sum(one.changes > 0 for one in moves),
        changes=sum(one.changes for one in moves),
        rises=sum(one.moves.count(1) for one in moves),
        falls=sum(one.moves.count(-1) for one in moves),
        reversals=sum(one.reversals for one in moves),
        reversing=sum(one.reversals > 0 for one in moves),
    )


def _mean(transitions: Sequence[Transition]) -> float | None:
    gains = [one.gain for one in transitions if one.gain is not None]
    return sum(gains) / len(gains) if gains else None


def _score(part: StrategyPhase) -> float | None:
    return next((point.score for point in part.node.checkpoints if point.step == part.last_step), None)
