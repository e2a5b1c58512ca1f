"""Whether a search has found something: its best strategy and its best static configuration on fresh seeds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.controller.comparison import Member, member
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.method_sections import TransferMethod
from llmzero_hpc.report.strategy_file import best_static, best_strategy
from llmzero_hpc.search.strategy_cost import Cost, measured, strategy_cost
from llmzero_hpc.sections import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.search_directory import SearchDirectory
    from llmzero_hpc.store.strategy_file import StrategyFile

WINNER, STATIC = "strategy", "static"
_TOLD = (
    "max_response_length",
    "batch_size",
    "rollouts",
    "learning_rate",
    "kl_coefficient",
    "temperature",
    "clip_range",
)


def confirmation(directory: SearchDirectory, seeds: Iterable[int], cost: Cost = measured) -> tuple[Member, ...]:
    """The searches that train both anew, seed by seed.

    The static configuration goes on for as much compute as the strategy's own steps cost: more epochs, all else equal.

    Raises:
        ConfigurationError: the best strategy is a static configuration itself.
        SearchNotFoundError: no phase has a validation score yet.
    """
    strategy, static = best_strategy(directory), best_static(directory)
    if len(strategy.phases) == 1:
        raise ConfigurationError(
            f"the best strategy of {strategy.search} is a single phase, so there is nothing to confirm",
            "`llmzero-hpc tree` shows the search",
        )
    stretched = _stretched(directory.read_tree(), strategy, static, cost)
    return tuple(
        _retrained(directory, label, phases, seed)
        for seed in seeds
        for label, phases in ((WINNER, strategy.configurations()), (STATIC, (stretched,)))
    )


def winners(searches: Iterable[tuple[Member, SearchDirectory]], seeds: Iterable[int]) -> tuple[Member, ...]:
    """The searches that train each method's best strategy anew, seed by seed; equal scores go to the earlier search.

    A method without a validation score has none.
    """
    best: dict[str, tuple[float, SearchDirectory]] = {}
    for one, directory in searches:
        top = directory.read_tree().best()
        if top is not None and top.score is not None and top.score > best.get(one.method, (-math.inf,))[0]:
            best[one.method] = (top.score, directory)
    strategies = {method: (directory, best_strategy(directory)) for method, (_, directory) in best.items()}
    return tuple(
        replace(
            _retrained(directory, method, strategy.configurations(), seed),
            changes=f"seed {strategy.seed}, {strategy.validation_score:.3f} there: {_words(strategy)}",
        )
        for seed in seeds
        for method, (directory, strategy) in strategies.items()
    )


def _words(strategy: StrategyFile) -> str:
    """A strategy in a line: what its phases have, and what each changes."""
    first, *others = strategy.phases
    known = {name: first.configuration.value(name) for name in _TOLD}
    parts = [", ".join(f"{name} {value:g}" for name, value in known.items() if not isinstance(value, str))]
    parts += [
        ", ".join(f"{name} {after:g}" for name, (_, after) in phase.changes.items() if isinstance(after, int | float))
        for phase in others
    ]
    return " > ".join(
        f"{part or 'the same'} ({phase.steps} steps)" for part, phase in zip(parts, strategy.phases, strict=True)
    )


def _stretched(tree: Tree, strategy: StrategyFile, static: StrategyFile, cost: Cost) -> Configuration:
    spent, own = (_cost(tree, one, cost) for one in (strategy, static))
    configuration = static.configurations()[0]
    factor = spent / own if own > 0 else sum(phase.steps for phase in strategy.phases) / static.phases[0].steps
    return configuration.changed(epochs=configuration.epochs * max(1.0, factor))


def _cost(tree: Tree, strategy: StrategyFile, cost: Cost) -> float:
    return strategy_cost(tree, strategy.phases[-1].node, strategy.phases[-1].last_step, cost)


def _retrained(directory: SearchDirectory, label: str, phases: tuple[Configuration, ...], seed: int) -> Member:
    budget = Budget(iterations=len(phases), includes_test=False)
    method = TransferMethod(kind="transfer", phases=phases)
    return member(directory.record.config, label, method, seed, budget)
