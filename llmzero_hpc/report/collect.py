"""From a tree and what stands beside it to the report's data: pure, no I/O and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmzero_hpc.report import costs, words
from llmzero_hpc.report.data import (
    AttemptReport,
    BestReport,
    Change,
    CheckpointReport,
    ControllerReport,
    FinalTest,
    NodeReport,
    Provenance,
    ReportData,
    SearchState,
    StrategyPhase,
    Trajectory,
)
from llmzero_hpc.search import strategy as strategies
from llmzero_hpc.search.budget import account
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.search.node import NodeStatus, TransitionKind
from llmzero_hpc.search.selection import Standstill
from llmzero_hpc.store.daemon_file import silence_seconds

if TYPE_CHECKING:
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.metrics import Series
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree


@dataclass(frozen=True, slots=True)
class Pulse:
    """The controller's newest sign of life, `at` seconds since the epoch; `last_error` is empty when all is well."""

    host: str
    pid: int | None
    at: float
    last_error: str = ""
    waiting_for: str = ""
    calls: Mapping[str, int] = field(default_factory=dict)
    api_dollars: float = 0.0
    server: str = ""
    server_device_seconds: float = 0.0
    server_devices: int = 0
    """Of the agents' own language model server; see `Heartbeat`."""
    is_gone: bool = False
    """Its process has certainly ended, or it gave the search back and cron will not start the next."""
    job_id: str = ""
    by_cron: bool = False
    queued_job_id: str = ""
    """A job of its own that was submitted since."""


def collect(
    tree: Tree,
    config: SearchConfig,
    *,
    created_at: float,
    train_rows: int,
    program_version: str,
    now: float,
    series: Mapping[int, Series],
    pulse: Pulse | None = None,
    paused: bool = False,
) -> ReportData:
    """All that is said of a search at the moment `now`.

    Args:
        tree: the search tree.
        config: the frozen configuration.
        created_at: when the search was created, seconds since the epoch.
        train_rows: rows of the training split.
        program_version: of the program that created the search.
        now: seconds since the epoch.
        series: metrics of the phases that are to be shown, whole; what came after an early stop is cut off here.
        pulse: the controller's newest sign of life, None when there was none.
        paused: nothing new is to start.
    """
    best = tree.best()
    path = strategies.path(tree, best.id, best.best.step) if best is not None and best.best is not None else ()
    on_path = frozenset(part.node.id for part in path)
    nodes = tuple(_node(tree, node, on_best_path=node.id in on_path) for node in tree)
    spent = account(
        tree,
        config.budget,
        created_at,
        now,
        api_dollars_used=pulse.api_dollars if pulse is not None else 0.0,
        shortest_seconds=config.cluster.time_limit_grain_seconds,
        devices=config.hardware.devices,
        server_device_seconds=pulse.server_device_seconds if pulse is not None else 0.0,
        server_devices=pulse.server_devices if pulse is not None else 0,
    )
    silent = pulse is not None and now - pulse.at > silence_seconds(config.tick_seconds, by_cron=pulse.by_cron)
    controller = ControllerReport(
        host=pulse.host if pulse else "",
        pid=pulse.pid if pulse else None,
        age_seconds=max(0.0, now - pulse.at) if pulse else None,
        is_gone=pulse is None or pulse.is_gone or silent,
        last_error=words.plain(pulse.last_error) if pulse else "",
        waiting_for=words.plain(pulse.waiting_for) if pulse else "",
        cluster_calls=sum(pulse.calls.values()) if pulse else 0,
        calls=dict(sorted(pulse.calls.items())) if pulse else {},
        is_stale=pulse is not None and silent and not pulse.is_gone,
        job_id=pulse.job_id if pulse else "",
        by_cron=pulse is not None and pulse.by_cron,
        queued_job_id=pulse.queued_job_id if pulse else "",
        server=words.plain(pulse.server) if pulse else "",
    )
    refusal = spent.refusal
    state = _state(tree, config, refusal, controller, paused=paused)
    return ReportData(
        name=config.name,
        state=state,
        paused=paused,
        simulated=config.trainer == "rehearsal",
        next_step=_next_step(config.name, state, nodes, controller, refusal),
        generated_at=now,
        best=_best(tree, best),
        test=_test(tree),
        nodes=nodes,
        strategy=_phases(path, nodes),
        trajectories=_trajectories(path),
        progress=costs.progress(tree),
        budget=costs.budget_lines(tree, config, spent, created_at=created_at, now=now),
        device_unit=costs.device_unit(config),
        controller=controller,
        provenance=Provenance(
            program_version=program_version,
            seed=config.seed,
            trainer=config.trainer,
            model=words.plain(config.model),
            task=config.task.name,
            hardware=_hardware(config),
            train_rows=train_rows,
            agents=config.agents.kind if config.method.kind == "llmzero" else config.method.kind,
            created_at=created_at,
        ),
        series={
            node_id: found.up_to(stop.step) if (stop := tree[node_id].stop) is not None else found
            for node_id, found in series.items()
        },
    )


def changes_between(before: Configuration, after: Configuration) -> tuple[Change, ...]:
    """What differs, in the order of the table, overrides last."""
    return tuple(
        Change(name, HYPERPARAMETERS[name].parameter_class.value if name in HYPERPARAMETERS else "override", *values)
        for name, values in before.differences(after).items()
    )


def _origin(node: Node) -> int | None:
    if node.kind is TransitionKind.DEBUG and node.repairs is not None:
        return node.repairs
    if node.resume is not None:
        return node.resume.node
    return 0 if node.id > 0 else None


def _node(tree: Tree, node: Node, *, on_best_path: bool) -> NodeReport:
    origin = _origin(node)
    before = tree[origin].configuration if origin is not None else None
    after = node.configuration
    last = node.last_step
    if node.stop is not None and last is not None:
        last = min(last, node.stop.step)
    checkpoints = [point for point in node.checkpoints if node.stop is None or point.step <= node.stop.step]
    return NodeReport(
        id=node.id,
        kind=node.kind,
        parent=node.parent,
        repairs=node.repairs,
        resume_node=node.resume.node if node.resume else None,
        resume_step=node.resume.step if node.resume else None,
        status=node.status,
        pruned=node.pruned,
        score=node.score,
        best_step=node.best.step if node.best else None,
        first_step=node.first_step,
        last_step=last,
        planned_last_step=None if node.total_steps is None else node.first_step + node.total_steps - 1,
        compared_with=origin,
        changes=changes_between(before, after) if before is not None and after is not None else (),
        configuration=None if after is None else {**after.values(), **after.overrides},
        diagnosis=words.plain(node.rationale.diagnosis) if node.rationale else "",
        evidence=tuple(words.plain(item) for item in node.rationale.evidence) if node.rationale else (),
        author=words.plain(node.rationale.author) if node.rationale else "",
        rule=words.plain(node.rationale.rule) if node.rationale else "",
        checkpoints=tuple(CheckpointReport(point.step, point.score) for point in checkpoints),
        attempts=tuple(
            AttemptReport(
                attempt.number,
                attempt.job.job_id if attempt.job else None,
                attempt.started_at,
                attempt.ended_at,
                attempt.ending.value if attempt.ending else None,
                attempt.exit_code,
                attempt.device_seconds,
                submitted_at=attempt.job.submitted_at if attempt.job else None,
                restarts=attempt.restarts,
                hosts=words.plain(attempt.hosts),
                accounted=attempt.accounted,
            )
            for attempt in node.attempts
        ),
        device_seconds=node.device_seconds,
        stop_reason=words.plain(node.stop.reason) if node.stop else "",
        stop_author=words.plain(node.stop.author) if node.stop else "",
        problem=words.plain(node.problem),
        on_best_path=on_best_path,
    )


def _score_at(node: Node, step: int) -> float | None:
    return next((point.score for point in node.checkpoints if point.step == step), None)


def _phases(path: tuple[strategies.StrategyPhase, ...], nodes: tuple[NodeReport, ...]) -> tuple[StrategyPhase, ...]:
    found: list[StrategyPhase] = []
    handed: float | None = None
    before: Configuration | None = None
    for position, part in enumerate(path, start=1):
        node, report = part.node, nodes[part.node.id]
        reached = _score_at(node, part.last_step)
        found.append(
            StrategyPhase(
                position=position,
                node=node.id,
                first_step=part.first_step,
                last_step=part.last_step,
                score=reached,
                gain=None if reached is None or handed is None else reached - handed,
                changes=changes_between(before, node.configuration) if before and node.configuration else (),
                diagnosis=report.diagnosis,
                evidence=report.evidence,
                author=report.author,
                rule=report.rule,
                device_seconds=report.device_seconds,
            )
        )
        handed, before = reached, node.configuration
    return tuple(found)


def _trajectories(path: tuple[strategies.StrategyPhase, ...]) -> tuple[Trajectory, ...]:
    found = [
        Trajectory(item.name, item.parameter_class.value, item.values, item.reversals)
        for item in strategies.trajectories(path)
    ]
    used = [part.node.configuration.overrides for part in path if part.node.configuration is not None]
    for key in sorted({key for overrides in used for key in overrides}):
        values = tuple(overrides.get(key) for overrides in used)
        present = tuple(value for value in values if value is not None)
        found.append(Trajectory(key, "override", values, strategies.ParameterTrajectory(key, present).reversals))
    return tuple(item for item in found if item.values)


def _best(tree: Tree, best: Node | None) -> BestReport | None:
    if best is None or best.best is None:
        return None
    start = tree[0].score
    return BestReport(
        node=best.id,
        step=best.best.step,
        score=best.best.score,
        gain=None if start is None or best.id == 0 else best.best.score - start,
        provisional=best.is_active,
    )


def _test(tree: Tree) -> FinalTest | None:
    evaluation = tree.evaluation
    if evaluation is None or not evaluation.is_over:
        return None
    return FinalTest(
        evaluation.checkpoint.node,
        evaluation.checkpoint.step,
        evaluation.score,
        dict(evaluation.subtask_scores or {}),
        words.plain(evaluation.problem),
    )


def _hardware(config: SearchConfig) -> str:
    hardware = config.hardware
    if hardware.gpus:
        return "1 GPU a phase" if hardware.gpus == 1 else f"{hardware.gpus} GPUs a phase"
    return "1 CPU thread a phase" if hardware.threads == 1 else f"{hardware.threads} CPU threads a phase"


def _is_finished(tree: Tree, config: SearchConfig, refusal: str | None) -> bool:
    if not len(tree) or tree.active():
        return False
    if tree.evaluation is not None:
        return tree.evaluation.is_over
    has_test = getattr(config.task, "test", "built in") is not None
    if has_test and tree.best() is not None:
        return False
    return refusal is not None or config.growth.next(tree) is Standstill.EXHAUSTED


def _state(
    tree: Tree, config: SearchConfig, refusal: str | None, controller: ControllerReport, *, paused: bool
) -> SearchState:
    if _is_finished(tree, config, refusal):
        return SearchState.FINISHED
    if paused:
        return SearchState.PAUSED
    if controller.age_seconds is None and not len(tree):
        return SearchState.NOT_STARTED
    if controller.is_gone:
        return SearchState.CONTROLLER_GONE
    return SearchState.WAITING if controller.last_error else SearchState.RUNNING


def _next_step(
    name: str, state: SearchState, nodes: tuple[NodeReport, ...], controller: ControllerReport, refusal: str | None
) -> str:
    if state is SearchState.FINISHED:
        spent = refusal is not None
        return "Nothing: the search is over." if spent else "Nothing: no phase is left to expand, the search is over."
    if state is SearchState.PAUSED:
        return f"Running phases go on, nothing new starts; `llmzero-hpc resume {name}` lifts the pause."
    if state is SearchState.NOT_STARTED:
        return f"Nothing runs yet; `llmzero-hpc start {name}` starts it."
    if state is SearchState.CONTROLLER_GONE and controller.queued_job_id:
        return f"The controller starts when the cluster starts its job {controller.queued_job_id}; jobs go on."
    if state is SearchState.CONTROLLER_GONE:
        since = "" if controller.age_seconds is None else f" for {words.duration(controller.age_seconds)}"
        return f"No sign of the controller{since}; jobs go on by themselves; `llmzero-hpc start {name}` takes up again."
    if state is SearchState.WAITING:
        return f"Waits and tries again: {words.clipped(controller.last_error, 160)}"
    active = [node for node in nodes if node.is_active]
    if active:
        return "; ".join(_node_next(node) for node in active[:3]) + (
            f"; {len(active) - 3} more" if len(active) > 3 else ""  # noqa: PLR2004 - one sentence holds three
        )
    if controller.waiting_for:
        return f"Waits for {controller.waiting_for}."
    if refusal is not None:
        return "The best strategy is measured on the test split, once."
    return "The next phase is chosen."


def _node_next(node: NodeReport) -> str:
    if node.status is NodeStatus.RUNNING:
        steps = "" if node.steps_planned is None else f" ({node.steps_done} of {node.steps_planned} steps)"
        return f"phase {node.id} trains{steps}"
    return f"phase {node.id} " + {
        NodeStatus.PLANNED: "waits for its proposal",
        NodeStatus.PROPOSED: "is about to be submitted",
        NodeStatus.SUBMITTING: "is being submitted",
        NodeStatus.PENDING: "waits in the queue",
    }.get(node.status, node.status.value)
