"""Optuna's sampler and pruner over the tree: its study is built anew from the tree for each answer."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llmzero_hpc.agents.base import StopAnswer, StopRequest
from llmzero_hpc.baselines.base import Baseline, Problems
from llmzero_hpc.baselines.space import Dimension, configured, within_bounds
from llmzero_hpc.baselines.static import RandomSearch
from llmzero_hpc.errors import AgentError, MissingDependencyError
from llmzero_hpc.method_sections import Range
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.method_sections import AshaMethod, TpeMethod
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.node import Node

_DRAWS = 16
"""Suggestions that are asked for until one can be trained."""


class Tpe(Baseline):
    """Tree-structured Parzen estimator over the scores of all trials; those in flight count as bad ones."""

    def __init__(self, config: SearchConfig, problems: Problems, method: TpeMethod) -> None:
        super().__init__(config, problems)
        self._space = within_bounds(method.ranges, config.bounds)
        self._startup = method.startup_trials

    def check(self) -> None:
        """Whether Optuna is installed.

        Raises:
            MissingDependencyError: it is not.
        """
        _require_optuna(self._name)

    def trial(self, earlier: Sequence[Node], seed: int) -> Configuration:
        """What the sampler suggests after those trials.

        Raises:
            AgentError: nothing that it suggested could be trained.
        """
        from optuna.samplers import TPESampler

        study = _study(sampler=TPESampler(seed=seed, n_startup_trials=self._startup))
        distributions = {name: _distribution(name, dimension) for name, dimension in self._space.items()}
        for node in earlier:
            if node.configuration is not None:
                study.add_trial(_frozen(node, node.configuration, distributions))
        problems: list[str] = []
        for _ in range(_DRAWS):
            suggested = study.ask(distributions)
            configuration = configured(self._base, suggested.params)
            problems = self._problems(configuration)
            if not problems:
                return configuration
            study.tell(suggested, state=_state("FAIL"))
        raise AgentError(f"none of {_DRAWS} suggestions can be trained; the last: {problems[0]}")


class Asha(RandomSearch):
    """Random trials; successive halving decides at each rung which go on. Resources are validations of the trial."""

    def __init__(self, config: SearchConfig, problems: Problems, method: AshaMethod) -> None:
        super().__init__(config, problems, method.ranges)
        self._pruner = partial(_pruner, method.first_rung, method.reduction)

    def check(self) -> None:
        """Whether Optuna is installed.

        Raises:
            MissingDependencyError: it is not.
        """
        _require_optuna(self._name)

    def judge(self, request: StopRequest) -> StopAnswer:
        """STOP where the pruner says so. All other trials pass their rungs first, in the order of their ids."""
        newest = request.series.rows[-1].step if request.series.rows else 0
        study = _study(pruner=self._pruner())
        stop, rung = False, 0
        for node in (*request.rivals, request.node):
            trial = study.ask()
            points = node.checkpoints if node.id != request.node.id else _until(node, newest)
            for number, point in enumerate(points, start=1):
                trial.report(point.score, number)
                stop, rung = trial.should_prune(), number
        reason = f"not among the best of the trials that passed {rung} validations" if stop else "it is kept"
        return StopAnswer(stop=stop, reason=reason, author=self._name)


def _until(node: Node, step: int) -> tuple[Any, ...]:
    return tuple(point for point in node.checkpoints if point.step <= step)


def _require_optuna(name: str) -> None:
    if find_spec("optuna") is None:
        raise MissingDependencyError(f"method {name} needs Optuna", "install it: `pip install llmzero-hpc[baselines]`")


def _pruner(first_rung: int, reduction: int) -> BasePruner:
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=first_rung, reduction_factor=reduction)


def _study(sampler: BaseSampler | None = None, pruner: BasePruner | None = None) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)


def _distribution(name: str, dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(dimension, Range):
        return CategoricalDistribution(dimension)
    if HYPERPARAMETERS[name].kind is int:
        return IntDistribution(round(dimension.low), round(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _frozen(node: Node, configuration: Configuration, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import create_trial

    known = {
        name: value
        for name, distribution in distributions.items()
        if distribution._contains(distribution.to_internal_repr(value := configuration.value(name)))  # noqa: SLF001
    }
    score = None if node.is_active or node.status is NodeStatus.FAILED else node.score
    state = "RUNNING" if node.is_active else "FAIL" if score is None else "COMPLETE"
    return create_trial(
        state=_state(state), value=score, params=known, distributions={name: distributions[name] for name in known}
    )
