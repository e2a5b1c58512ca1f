"""What status, tree, show, report and `--json` say of a search: plain values, computed elsewhere (`report.collect`).

Light: the login node's `status` imports this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum, StrEnum
from typing import Any

from llmzero_hpc.search.hyperparameters import Scalar
from llmzero_hpc.search.metrics import Series
from llmzero_hpc.search.node import NodeStatus, TransitionKind
from llmzero_hpc.store.agent_calls import Spending

JSON_FORMAT = 1
"""Raised when a key of `to_json` is renamed or removed; new keys may come at any time."""


class SearchState(StrEnum):
    """Where the whole search stands."""

    NOT_STARTED = "not started"
    RUNNING = "running"
    WAITING = "waiting"
    """The controller is there, but the cluster or an agent cannot be asked at the moment."""
    PAUSED = "paused"
    CONTROLLER_GONE = "controller gone"
    """There is work left and nobody to do it: no sign of life for too long."""
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Change:
    """One hyperparameter that differs from where the phase came from; `None` where an override is absent."""

    name: str
    parameter_class: str
    """capacity, regularization, other, fixed, or override."""
    before: Scalar | None
    after: Scalar | None


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """A complete checkpoint, its step along the strategy and its validation score."""

    step: int
    score: float


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """One submission. Times are seconds since the epoch, None while unknown."""

    number: int
    job_id: str | None
    started_at: float | None
    ended_at: float | None
    ending: str | None
    exit_code: int | None
    device_seconds: float
    submitted_at: float | None = None
    restarts: int = 0
    """How often the cluster queued it again."""
    hosts: str = ""
    """Where its last run was, as the cluster writes lists of machines."""
    accounted: bool = False
    """`device_seconds` is the cluster's own figure, no estimate of this program."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One phase. Steps are numbered along its strategy.

    `compared_with` is the node against which `changes` count: the one it resumed from, the one it repairs, or node 0
    for a later scratch phase. `last_step` and `checkpoints` end where an early stop was decided.
    """

    id: int
    kind: TransitionKind
    parent: int | None
    repairs: int | None
    resume_node: int | None
    resume_step: int | None
    status: NodeStatus
    pruned: bool
    score: float | None
    best_step: int | None
    first_step: int
    last_step: int | None
    planned_last_step: int | None
    compared_with: int | None
    changes: tuple[Change, ...]
    configuration: Mapping[str, Scalar] | None
    """Every hyperparameter and override; None while the phase has no configuration."""
    diagnosis: str
    evidence: tuple[str, ...]
    author: str
    rule: str
    checkpoints: tuple[CheckpointReport, ...]
    attempts: tuple[AttemptReport, ...]
    device_seconds: float
    stop_reason: str
    stop_author: str
    problem: str
    on_best_path: bool

    @property
    def steps_done(self) -> int:
        """Steps of this phase so far."""
        return 0 if self.last_step is None else max(0, self.last_step - self.first_step + 1)

    @property
    def steps_planned(self) -> int | None:
        """Steps that this phase is to make, where it is known."""
        return None if self.planned_last_step is None else self.planned_last_step - self.first_step + 1

    @property
    def is_active(self) -> bool:
        """Planned, queued or running."""
        return not self.status.is_final


@dataclass(frozen=True, slots=True)
class StrategyPhase:
    """One phase of the best strategy: the part of a node that the strategy uses."""

    position: int
    """1 for the first phase."""
    node: int
    first_step: int
    last_step: int
    score: float | None
    """Validation score of the checkpoint it hands on: at `last_step`."""
    gain: float | None
    """That score minus the one handed to it."""
    changes: tuple[Change, ...]
    diagnosis: str
    evidence: tuple[str, ...]
    author: str
    rule: str
    device_seconds: float


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A hyperparameter along the best strategy: one value a phase. `reversals` counts changes of direction."""

    name: str
    parameter_class: str
    values: tuple[Scalar | None, ...]
    reversals: int

    @property
    def is_constant(self) -> bool:
        """It never changes."""
        return len(set(self.values)) <= 1


@dataclass(frozen=True, slots=True)
class BestReport:
    """The best validated checkpoint of the search, and what it gained over the best of node 0."""

    node: int
    step: int
    score: float
    gain: float | None
    provisional: bool
    """Its phase still runs."""


@dataclass(frozen=True, slots=True)
class FinalTest:
    """The test score of the reported strategy: measured once, after the search; None until then."""

    node: int
    step: int
    score: float | None
    subtask_scores: Mapping[str, float]
    problem: str


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One limit of the search; `limit` is None where there is none.

    `name` is iterations, compute, money or deadline; `unit` iterations, CPU-hours, GPU-hours, dollars or hours.
    """

    name: str
    unit: str
    used: float
    limit: float | None
    reserved: float = 0.0
    """What active phases may still use."""
    estimated: float = 0.0
    """The part of `used` that the cluster's accounting has not confirmed; 0 where there is no such accounting."""

    @property
    def left(self) -> float | None:
        """What is left, never below zero."""
        return None if self.limit is None else max(0.0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class ProgressPoint:
    """The search after one more phase: iterations and device hours until then, its score and the best so far."""

    iteration: int
    node: int
    device_hours: float
    score: float | None
    best: float | None


@dataclass(frozen=True, slots=True)
class ControllerReport:
    """The controller's last sign of life; `age_seconds` is None when there was none."""

    host: str
    pid: int | None
    age_seconds: float | None
    is_gone: bool
    """There never was one, it ended, or it has been silent for too long."""
    last_error: str
    waiting_for: str
    cluster_calls: int
    calls: Mapping[str, int] = field(default_factory=dict)
    """Those calls by the cluster's name for them."""
    is_stale: bool = False
    """It has been silent for too long, and nobody knows that it ended."""
    job_id: str = ""
    """The job in which it runs; empty outside of one."""
    by_cron: bool = False
    """Cron starts it for a tick at a time."""
    queued_job_id: str = ""
    """A job of its own that was submitted, and has given no sign of life since; empty where there is none."""
    server: str = ""
    """How the agents' own language model server stands; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the figures come from."""

    program_version: str
    seed: int
    trainer: str
    model: str
    task: str
    hardware: str
    train_rows: int
    agents: str
    created_at: float


@dataclass(frozen=True, slots=True)
class ModelUse:
    """The language model that the search asks, and what that has come to; `dollars` is None without prices."""

    name: str
    calls: int
    tokens: int
    """Of prompts and replies together."""
    dollars: float | None


@dataclass(frozen=True, slots=True)
class AgentCost:
    """What the calls of one agent for one phase came to."""

    node: int
    agent: str
    spending: Spending


@dataclass(frozen=True, slots=True)
class ReportData:
    """One search at one moment.

    `series` holds the metrics of the phases that were read; it is no part of the JSON.
    """

    name: str
    state: SearchState
    paused: bool
    simulated: bool
    """The numbers are made up by the rehearsal trainer; whoever shows them says so."""
    next_step: str
    """What happens next, one sentence."""
    generated_at: float
    best: BestReport | None
    test: FinalTest | None
    nodes: tuple[NodeReport, ...]
    strategy: tuple[StrategyPhase, ...]
    trajectories: tuple[Trajectory, ...]
    progress: tuple[ProgressPoint, ...]
    budget: tuple[BudgetLine, ...]
    device_unit: str
    """GPU-hours or CPU-hours."""
    controller: ControllerReport
    provenance: Provenance
    model: ModelUse | None = None
    """As the controller last counted; None where no language model takes part."""
    costs: tuple[AgentCost, ...] = ()
    """By phase and agent, from the log of calls; empty where that was not read."""
    series: Mapping[int, Series] = field(default_factory=dict)

    def children(self, node_id: int) -> tuple[NodeReport, ...]:
        """Children in the search tree, by id."""
        return tuple(node for node in self.nodes if node.parent == node_id)

    def active(self) -> tuple[NodeReport, ...]:
        """Phases that are planned, queued or running."""
        return tuple(node for node in self.nodes if node.is_active)

    def strategy_series(self) -> Series:
        """The metrics of the best strategy from its first to its best step."""
        return Series(
            tuple(
                row
                for phase in self.strategy
                for row in self.series.get(phase.node, Series()).rows
                if phase.first_step <= row.step <= phase.last_step
            )
        )


def to_json(data: ReportData) -> dict[str, Any]:
    """Plain values in a stable shape, for scripts.

    The keys are those of `ReportData` and its records, and `format` (`JSON_FORMAT`). In addition each node of which
    metrics were read has `curves`: `{"val_score": [[step, value], ...], "reward_mean": [...]}`. Scores and shares are
    fractions, `*_seconds` seconds, `*_at` seconds since the epoch; what is not known is null.
    """
    plain: dict[str, Any] = {"format": JSON_FORMAT, **_plain(replace(data, series={}))}
    del plain["series"]
    for line, budget in zip(plain["budget"], data.budget, strict=True):
        line["left"] = budget.left
    for node in plain["nodes"]:
        if (series := data.series.get(node["id"])) is not None:
            node["curves"] = {
                name: [list(point) for point in series.points(name)] for name in ("val_score", "reward_mean")
            }
    return plain


def without_clock(data: ReportData) -> ReportData:
    """The same without times, costs and attempts: equal for two runs of the same seed.

    What was reported after an early stop was decided is gone already, as a late kill must not change a result.
    """
    return replace(
        data,
        generated_at=0.0,
        nodes=tuple(replace(node, attempts=(), device_seconds=0.0) for node in data.nodes),
        strategy=tuple(replace(phase, device_seconds=0.0) for phase in data.strategy),
        progress=tuple(replace(point, device_hours=0.0) for point in data.progress),
        budget=tuple(
            line if line.name == "iterations" else replace(line, used=0.0, reserved=0.0, estimated=0.0)
            for line in data.budget
        ),
        controller=ControllerReport("", None, None, is_gone=False, last_error="", waiting_for="", cluster_calls=0),
        provenance=replace(data.provenance, created_at=0.0),
        model=None,
        costs=(),
        series={node: _timeless(series) for node, series in data.series.items()},
    )


_TIMED = frozenset({"step_seconds", "tokens_per_second"})


def _timeless(series: Series) -> Series:
    return Series(
        tuple(
            replace(row, values={name: value for name, value in row.values.items() if name not in _TIMED})
            for row in series.rows
        )
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
