"""Two strategies beside each other: where they come from, phase by phase, and how their parameters moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmzero_hpc.analysis.structure import Structure, structure_of
from llmzero_hpc.report import words
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmzero_hpc.store.strategy_file import PhaseOfStrategy, StrategyFile

_PROVENANCE = ("search", "method", "seed", "trainer", "model", "train_rows", "validation_score", "test_score")


def structure_of_file(strategy: StrategyFile) -> Structure:
    """How the hyperparameters of a strategy move."""
    return structure_of(
        strategy.search,
        [phase.configuration.values() for phase in strategy.phases],
        [phase.validation_score for phase in strategy.phases],
    )


def difference(first: StrategyFile, second: StrategyFile) -> dict[str, Any]:
    """What differs, as plain values: pairs of the first's and the second's; null where one has no such phase."""
    count = max(len(first.phases), len(second.phases))
    one, two = structure_of_file(first), structure_of_file(second)
    return {
        "provenance": {
            key: [getattr(first, key), getattr(second, key)]
            for key in _PROVENANCE
            if getattr(first, key) != getattr(second, key)
        },
        "phases": [_phases(first, second, place) for place in range(count)],
        "reversals": {
            name: [one.of(name).reversals, two.of(name).reversals]
            for name in HYPERPARAMETERS
            if one.of(name).changes or two.of(name).changes
        },
    }


def lines(found: Mapping[str, Any], names: tuple[str, str]) -> Iterator[str]:
    """A difference for people."""
    if not _differs(found):
        yield f"{names[0]} and {names[1]} are the same strategy."
        return
    yield f"{names[0]} > {names[1]}"
    for key, (before, after) in found["provenance"].items():
        yield f"  {key.replace('_', ' ')}: {_shown(before)} > {_shown(after)}"
    for phase in found["phases"]:
        steps, score = phase["steps"], phase["validation_score"]
        yield (
            f"phase {phase['position']}: {_shown(steps[0])} > {_shown(steps[1])} steps, "
            f"validation {_score(score[0])} > {_score(score[1])}"
        )
        for key, (before, after) in phase["configuration"].items():
            yield f"    {key}: {_shown(before)} > {_shown(after)}"
    for key, (before, after) in found["reversals"].items():
        kind = HYPERPARAMETERS[key].parameter_class
        if before != after and kind is not ParameterClass.FIXED:
            yield f"{key} ({kind.value}) turns {before} times > {after} times"


def _differs(found: Mapping[str, Any]) -> bool:
    phases = found["phases"]
    return any(phase["configuration"] or phase["steps"][0] != phase["steps"][1] for phase in phases) or bool(
        found["provenance"]
    )


def _phases(first: StrategyFile, second: StrategyFile, place: int) -> dict[str, Any]:
    one = first.phases[place] if place < len(first.phases) else None
    two = second.phases[place] if place < len(second.phases) else None
    return {
        "position": place + 1,
        "nodes": [None if phase is None else phase.node for phase in (one, two)],
        "steps": [None if phase is None else phase.steps for phase in (one, two)],
        "validation_score": [None if phase is None else phase.validation_score for phase in (one, two)],
        "configuration": _configurations(one, two),
    }


def _configurations(one: PhaseOfStrategy | None, two: PhaseOfStrategy | None) -> dict[str, list[Any]]:
    if one is None or two is None:
        return {}
    return {key: list(pair) for key, pair in one.configuration.differences(two.configuration).items()}


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _score(value: float | None) -> str:
    return "none" if value is None else words.score(value)
