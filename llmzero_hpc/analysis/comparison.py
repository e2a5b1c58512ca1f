"""Methods against each other on one task, under one budget, on the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from llmzero_hpc.analysis.bootstrap import Estimate, PairedDifference, Ratio, estimate, paired, ratio
from llmzero_hpc.analysis.curves import Point, best_so_far, cost_to_reach, score_at, total_cost
from llmzero_hpc.analysis.wall import makespan
from llmzero_hpc.search.strategy_cost import Cost, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.agent_calls import Spending

_GRID = 60
"""Points of a band."""
_BAND_RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Run:
    """One search: a method on a seed. `cost` is in device-seconds."""

    method: str
    seed: int
    is_static: bool
    phases: int
    cost: float
    validation: float | None
    """Best validation score."""
    test: float | None
    """Of the checkpoint with that score."""
    curve: tuple[Point, ...]
    is_over: bool
    """The search has ended; what is said of one that has not is provisional."""
    wall: float = 0.0
    """Seconds that its phases take on as many places as it has (`analysis.wall`)."""
    tokens: int = 0
    """Of its language models: prompts and replies."""
    dollars: float = 0.0
    """What those cost."""


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One row of the table."""

    method: str
    is_static: bool
    runs: int
    validation: Estimate | None
    test: Estimate | None
    cost: float
    """Mean device-seconds of a run."""
    phases: float
    """Mean number of phases."""
    reached: int
    """Runs that reached the best static result of their seed."""
    cost_to_reach: float | None
    """Median device-seconds of those until they had."""
    wall: float = 0.0
    """Mean seconds of a run."""
    tokens: float = 0.0
    """Mean tokens of its language models."""
    dollars: float = 0.0
    """Mean cost of those."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The reference against another method on the seeds that both have: reference minus other."""

    reference: str
    other: str
    validation: PairedDifference | None
    test: PairedDifference | None
    compute: Ratio | None
    """What the other spent over what the reference spent."""
    speed: Ratio | None
    """What the reference spent over what the other spent until both had the lower of their two best validation scores.

    Below 1 the other is slower: the paper's speed (Table 2). The reference saves as much as is missing to 1.
    """
    wall: Ratio | None
    """How long the reference takes over how long the other takes: above 1 the other is done earlier."""


@dataclass(frozen=True, slots=True)
class Band:
    """Best score so far against compute: mean over runs, with its bootstrap interval."""

    method: str
    costs: tuple[float, ...]
    estimates: tuple[Estimate | None, ...]
    """None until every run has a score."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is said of a comparison."""

    reference: str
    methods: tuple[MethodResult, ...]
    pairs: tuple[Pair, ...]
    bands: tuple[Band, ...]
    runs: tuple[Run, ...]

    @property
    def is_over(self) -> bool:
        """All searches have ended."""
        return all(run.is_over for run in self.runs)


def run_of(
    tree: Tree,
    *,
    method: str,
    seed: int,
    is_static: bool,
    is_over: bool,
    cost: Cost = measured,
    slots: int = 1,
    devices: int = 1,
    spending: Spending | None = None,
) -> Run:
    """What one search has come to. Early-stopped and failed phases are paid for like all others.

    `slots` are phases in flight, `devices` those of one phase; `spending` is that of its language models.
    """
    best, evaluation = tree.best(), tree.evaluation
    return Run(
        method=method,
        seed=seed,
        is_static=is_static,
        phases=tree.iterations(),
        cost=total_cost(tree, cost),
        validation=None if best is None else best.score,
        test=None if evaluation is None else evaluation.score,
        curve=best_so_far(tree, cost),
        is_over=is_over,
        wall=makespan(tree, slots, devices, cost),
        tokens=0 if spending is None else spending.tokens,
        dollars=0.0 if spending is None else spending.dollars,
    )


def compared(runs: Sequence[Run], reference: str) -> Comparison:
    """The comparison of methods, in the order in which they first occur."""
    names = list(dict.fromkeys(run.method for run in runs))
    statics = _best_static(runs)
    return Comparison(
        reference=reference,
        methods=tuple(_row([run for run in runs if run.method == name], statics) for name in names),
        pairs=tuple(_pair(runs, reference, name) for name in names if name != reference and reference in names),
        bands=_bands(runs, names),
        runs=tuple(runs),
    )


def _best_static(runs: Sequence[Run]) -> dict[int, float]:
    """The best validation score of any static method, by seed."""
    best: dict[int, float] = {}
    for run in runs:
        if run.is_static and run.validation is not None:
            best[run.seed] = max(run.validation, best.get(run.seed, run.validation))
    return best


def _row(runs: Sequence[Run], statics: dict[int, float]) -> MethodResult:
    costs = [
        cost
        for run in runs
        if run.seed in statics and (cost := cost_to_reach(run.curve, statics[run.seed])) is not None
    ]
    return MethodResult(
        method=runs[0].method,
        is_static=runs[0].is_static,
        runs=len(runs),
        validation=_estimate([run.validation for run in runs]),
        test=_estimate([run.test for run in runs]),
        cost=sum(run.cost for run in runs) / len(runs),
        phases=sum(run.phases for run in runs) / len(runs),
        reached=len(costs),
        cost_to_reach=median(costs) if costs else None,
        wall=sum(run.wall for run in runs) / len(runs),
        tokens=sum(run.tokens for run in runs) / len(runs),
        dollars=sum(run.dollars for run in runs) / len(runs),
    )


def _pair(runs: Sequence[Run], reference: str, other: str) -> Pair:
    first = {run.seed: run for run in runs if run.method == reference}
    second = {run.seed: run for run in runs if run.method == other}
    both = [(first[seed], second[seed]) for seed in first if seed in second]
    return Pair(
        reference,
        other,
        _difference([(one.validation, two.validation) for one, two in both]),
        _difference([(one.test, two.test) for one, two in both]),
        compute=ratio([two.cost for _, two in both], [one.cost for one, _ in both]),
        speed=_speed(both),
        wall=ratio([one.wall for one, _ in both], [two.wall for _, two in both]),
    )


def _speed(pairs: Sequence[tuple[Run, Run]]) -> Ratio | None:
    reached = []
    for one, two in pairs:
        if one.validation is None or two.validation is None:
            continue
        target = min(one.validation, two.validation)
        costs = (cost_to_reach(one.curve, target), cost_to_reach(two.curve, target))
        if costs[0] is not None and costs[1] is not None:
            reached.append((costs[0], costs[1]))
    return ratio([one for one, _ in reached], [two for _, two in reached])


def _difference(pairs: Sequence[tuple[float | None, float | None]]) -> PairedDifference | None:
    whole = [(one, two) for one, two in pairs if one is not None and two is not None]
    return paired([one for one, _ in whole], [two for _, two in whole]) if whole else None


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return estimate(known) if known else None


def _bands(runs: Sequence[Run], names: Sequence[str]) -> tuple[Band, ...]:
    highest = max((run.cost for run in runs), default=0.0)
    costs = tuple(highest * place / _GRID for place in range(_GRID + 1))
    found = []
    for name in names:
        own = [run for run in runs if run.method == name]
        until = max(run.cost for run in own)
        estimates = []
        for cost in costs:
            scores = [score_at(run.curve, cost) for run in own]
            known = [score for score in scores if score is not None]
            complete = len(known) == len(own) and cost <= until
            estimates.append(estimate(known, resamples=_BAND_RESAMPLES) if complete else None)
        found.append(Band(name, costs, tuple(estimates)))
    return tuple(found)
