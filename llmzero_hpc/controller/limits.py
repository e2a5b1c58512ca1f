"""What a phase in flight may still cost: of the search's budget where costs are modelled, of its strategy's always."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.search.modelled_cost import attempt_seconds, last_step_within
from llmzero_hpc.search.node import BUDGET, STRATEGY_BUDGET, StopDecision
from llmzero_hpc.search.strategy_cost import LEAST_SHARE, inherited_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.metrics import Series
    from llmzero_hpc.search.node import Attempt, Node
    from llmzero_hpc.search.tree import Tree

_HOUR = 3600.0


class PhaseLimits:
    """Ends phases at the step that uses up what they may cost, whenever that is seen."""

    def __init__(self, config: SearchConfig, owes: Callable[[Node, float], bool]) -> None:
        self._models_cost = config.hardware.cost == "modelled"
        self._devices = config.hardware.devices
        self._search, self._strategy = config.budget.device_hours, config.budget.strategy_device_hours
        self._owes = owes

    def charged(self, tree: Tree, node: Node, attempt: Attempt, series: Series, now: float) -> tuple[Node, Attempt]:
        """A phase with the stop that a limit makes, and its newest attempt with what it cost.

        A modelled cost ends a phase after the judgements that came before that very step; a measured one ends it when
        it is seen, as a clock is never exact. A strategy with less left than is worth another start ends here.
        """
        paid = series
        inherited = inherited_seconds(tree, node.resume)
        if self._models_cost:
            node, paid = self._within(tree, node, series, inherited, now)
            attempt = replace(attempt, device_seconds=attempt_seconds(node, paid, self._devices))
        if self._strategy is None:
            return node, attempt
        own = attempt.device_seconds + sum(one.device_seconds for one in node.attempts[:-1])
        left = self._strategy * _HOUR - inherited - own
        if left <= 0 and node.stop is None and not self._models_cost:
            step = series.rows[-1].step if series.rows else node.first_step - 1
            node = replace(node, stop=_strategy_stop(step, now))
        return replace(node, is_leaf=left < LEAST_SHARE * self._strategy * _HOUR), attempt

    def _within(self, tree: Tree, node: Node, series: Series, inherited: float, now: float) -> tuple[Node, Series]:
        """A phase, and the rows of it that are paid for."""
        stop = self._first_stop(tree, node, series, inherited, now)
        if stop is None or stop.step == node.first_step + (node.total_steps or 0) - 1:
            return node, series
        if node.stop is None and self._owes(node, now):
            return node, series.up_to(stop.step - 1)
        if node.stop is None or node.stop.step > stop.step:
            node = replace(node, stop=stop)
        return node, series

    def _first_stop(self, tree: Tree, node: Node, series: Series, inherited: float, now: float) -> StopDecision | None:
        stops = []
        if self._strategy is not None:
            step = last_step_within(series, self._devices, self._strategy * _HOUR - inherited)
            stops += [_strategy_stop(step, now)] if step is not None else []
        if self._search is not None:
            others = tree.device_seconds() - tree[node.id].device_seconds
            step = last_step_within(series, self._devices, self._search * _HOUR - others)
            stops += [StopDecision(step, "the compute budget is used up", BUDGET, now)] if step is not None else []
        return min(stops, key=lambda stop: stop.step, default=None)


def _strategy_stop(step: int, now: float) -> StopDecision:
    return StopDecision(step, "its strategy has used up what one may cost", STRATEGY_BUDGET, now)
