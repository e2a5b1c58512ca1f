"""What an observation makes of a node: pure functions, so that every ending can be tested without a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import Charge, JobObservation, JobState
from llmzero_hpc.search.node import STRATEGY_BUDGET, Attempt, Checkpoint, Ending, Node, NodeStatus
from llmzero_hpc.store.marker import Marker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmzero_hpc.search.metrics import Series
    from llmzero_hpc.search.tree import Evaluation


@dataclass(frozen=True, slots=True)
class JobReport:
    """The witnesses on one attempt.

    `answered` says whether the cluster could be asked; only then does a missing `job` mean anything.
    """

    now: float
    answered: bool
    job: JobObservation | None
    marker: Marker | None


@dataclass(frozen=True, slots=True)
class Policy:
    """The constants of advancing.

    Attributes:
        grace_seconds: how long one witness alone (the cluster, or the job's absence) must stand to be believed.
        devices: what an attempt is charged for each second.
        max_attempts: attempts in a row without a new checkpoint before the phase counts as failed.
    """

    grace_seconds: float
    devices: int
    max_attempts: int


_ENDING_BY_STATE = {
    JobState.COMPLETED: Ending.VANISHED,  # ended without its marker: nothing can be said of the trainer
    JobState.FAILED: Ending.VANISHED,
    JobState.CANCELLED: Ending.STOPPED,
    JobState.TIME_LIMIT: Ending.TIME_LIMIT,
    JobState.PREEMPTED: Ending.PREEMPTED,
    JobState.NODE_FAILURE: Ending.NODE_FAILURE,
}
_ENDED_FROM_OUTSIDE = frozenset({JobState.CANCELLED, JobState.TIME_LIMIT, JobState.PREEMPTED, JobState.NODE_FAILURE})
_LONGEST_PAUSE_SECONDS = 1800.0


def advance_attempt(attempt: Attempt, report: JobReport, policy: Policy) -> Attempt:
    """An attempt after a look at its witnesses; two of them end it, one alone only after the grace time."""
    if attempt.is_over or attempt.job is None:
        return attempt
    live = report.job is not None and report.job.state.is_live
    attempt = _seen(attempt, report.job)
    marker = _marker_of(attempt, report.marker)
    attempt = _charged(attempt, report, marker, policy)
    if live:
        return replace(attempt, missing_since=None)
    if marker is not None and report.answered:
        attempt = replace(attempt, exit_code=marker.exit_code, problem=marker.problem)
        return _ended(attempt, _ending_of(marker, report.job), marker.ended_at, report, policy)
    if not report.answered:
        return attempt
    if attempt.missing_since is None:
        return replace(attempt, missing_since=report.now)
    if report.now - attempt.missing_since < policy.grace_seconds:
        return attempt
    ending = Ending.VANISHED if report.job is None else _ENDING_BY_STATE[report.job.state]
    return _ended(attempt, ending, attempt.missing_since, report, policy)


def is_leftover(attempt: Attempt, report: JobReport, policy: Policy) -> bool:
    """Whether a job is still there although its phase has come to an end.

    It hangs in its teardown, or the cluster has queued it once more because it lost the news.
    """
    marker = _marker_of(attempt, report.marker)
    finished = marker is not None and marker.outcome != "terminated"
    live = report.job is not None and report.job.state.is_live
    return finished and live and marker is not None and report.now - marker.ended_at > policy.grace_seconds


def settled_charge(attempt: Attempt, charge: Charge | None) -> Attempt:
    """An attempt that is over, with what the cluster's accounting says it cost, once that is final."""
    if charge is None or not charge.final:
        return attempt
    return replace(attempt, device_seconds=charge.device_seconds, accounted=True)


def _seen(attempt: Attempt, job: JobObservation | None) -> Attempt:
    if job is None:
        return attempt
    if job.restarts > attempt.restarts:
        attempt = replace(
            attempt, restarts=job.restarts, started_at=None, earlier_device_seconds=attempt.device_seconds
        )
    return replace(attempt, hosts=job.hosts or attempt.hosts)


def _marker_of(attempt: Attempt, marker: Marker | None) -> Marker | None:
    """The marker, if it is a word on this attempt's end: one that a requeued run has left behind is none."""
    if marker is None or marker.name != attempt.name:
        return None
    return marker if marker.restart >= attempt.restarts or marker.outcome == "completed" else None


def _ending_of(marker: Marker, job: JobObservation | None) -> Ending:
    if marker.outcome == "completed":
        return Ending.COMPLETED
    if marker.outcome == "error":
        return Ending.ERROR
    if marker.outcome == "time_limit":
        return Ending.TIME_LIMIT
    if marker.outcome == "infrastructure_error" and (job is None or job.state not in _ENDED_FROM_OUTSIDE):
        return Ending.INFRASTRUCTURE_ERROR
    return Ending.STOPPED if job is None else _ENDING_BY_STATE.get(job.state, Ending.STOPPED)


def _charged(attempt: Attempt, report: JobReport, marker: Marker | None, policy: Policy) -> Attempt:
    job = report.job
    if job is not None and job.state is JobState.PENDING and job.charge is not None:
        spent = job.charge.device_seconds
        return replace(attempt, earlier_device_seconds=spent, device_seconds=max(spent, attempt.device_seconds))
    started = attempt.started_at
    if started is None:
        started = marker.started_at if marker else (job.started_at if job else None)
    if started is None:
        return attempt
    seen_alive = job is not None and job.state.is_live
    until = marker.ended_at if marker else (report.now if seen_alive else started)
    cost = attempt.earlier_device_seconds + max(0.0, until - started) * policy.devices
    return replace(attempt, started_at=started, device_seconds=max(attempt.device_seconds, cost))


def _ended(attempt: Attempt, ending: Ending, ended_at: float, report: JobReport, policy: Policy) -> Attempt:
    cost = attempt.device_seconds
    if attempt.started_at is not None:
        cost = attempt.earlier_device_seconds + max(0.0, ended_at - attempt.started_at) * policy.devices
    over = replace(attempt, ending=ending, ended_at=ended_at, device_seconds=cost, missing_since=None)
    return settled_charge(over, report.job.charge if report.job else None)


def with_progress(node: Node, series: Series, complete: Iterable[int]) -> Node:
    """A node with what its metrics and checkpoints show; nothing after a stop decision counts."""
    limit = node.stop.step if node.stop else None
    rows = series.rows if limit is None else series.up_to(limit).rows
    usable = set(complete)
    checkpoints = tuple(
        Checkpoint(row.step, row.validation_score)
        for row in rows
        if row.validation_score is not None and row.step >= node.first_step and row.step in usable
    )
    return replace(node, checkpoints=checkpoints, last_step=rows[-1].step if rows else node.last_step)


def advance_node(node: Node, attempt: Attempt, policy: Policy, *, hold: bool) -> Node:
    """A node after its newest attempt was advanced.

    `hold` keeps a node whose job has ended from becoming final while judgements on it are still owed.
    """
    node = replace(node, attempts=(*node.attempts[:-1], attempt))
    if attempt.job is None and not attempt.is_over:
        return node
    if not attempt.is_over:
        running = attempt.started_at is not None
        return replace(node, status=NodeStatus.RUNNING if running else NodeStatus.PENDING)
    if hold:
        return node
    if node.stop is not None:
        # at the end of what its strategy may cost a phase has done all that it was to do
        is_whole = node.stop.author == STRATEGY_BUDGET
        return replace(node, status=NodeStatus.COMPLETED if is_whole else NodeStatus.EARLY_STOPPED)
    if node.cancel_requested:
        return replace(node, status=NodeStatus.CANCELLED)
    if attempt.ending is Ending.COMPLETED:
        return replace(node, status=NodeStatus.COMPLETED)
    if attempt.ending is Ending.ERROR:
        return replace(node, status=NodeStatus.FAILED, problem=_explained("the trainer exited", attempt))
    fruitless = attempts_without_progress(node)
    if fruitless >= policy.max_attempts:
        problem = f"{fruitless} attempts in a row gained no checkpoint; the last ended as {ending_text(attempt)}"
        return replace(node, status=NodeStatus.FAILED, problem=problem)
    return replace(node, status=NodeStatus.PROPOSED)


def advance_evaluation(
    evaluation: Evaluation, attempt: Attempt, result: tuple[float, dict[str, float]] | None, policy: Policy
) -> Evaluation:
    """An evaluation after its newest attempt was advanced. `result` is the score and those of the subtasks, if any."""
    evaluation = replace(evaluation, attempts=(*evaluation.attempts[:-1], attempt))
    if attempt.ending is Ending.COMPLETED and result is not None:
        return replace(evaluation, score=result[0], subtask_scores=result[1])
    if attempt.ending is Ending.COMPLETED:
        return replace(evaluation, problem="the evaluation ended without a result")
    if attempt.ending is Ending.ERROR:
        return replace(evaluation, problem=_explained("the evaluation exited", attempt))
    if attempt.is_over and attempt.number >= policy.max_attempts:
        problem = f"{attempt.number} attempts ended without a result; the last ended as {ending_text(attempt)}"
        return replace(evaluation, problem=problem)
    return evaluation


def retry_at(attempts: Sequence[Attempt], pause_seconds: float) -> float:
    """When the next attempt may be submitted, seconds since the epoch.

    At once, but for errors of the infrastructure: `pause_seconds` after the first, twice as long after each further one
    in a row that left the phase where it was.
    """
    errors = 0
    for attempt in reversed(attempts):
        if attempt.ending is not Ending.INFRASTRUCTURE_ERROR or attempt.resumed_step != attempts[-1].resumed_step:
            break
        errors += 1
    if not errors:
        return 0.0
    return (attempts[-1].ended_at or 0.0) + min(pause_seconds * 2.0 ** min(errors - 1, 16), _LONGEST_PAUSE_SECONDS)


def ending_text(attempt: Attempt) -> str:
    """How an attempt ended, for people."""
    ending = attempt.ending.value.replace("_", " ") if attempt.ending else ""
    return f"{ending}: {attempt.problem}" if attempt.problem else ending


def _explained(what: str, attempt: Attempt) -> str:
    exited = f"{what} with code {attempt.exit_code}"
    return f"{exited}: {attempt.problem}" if attempt.problem else exited


def attempts_without_progress(node: Node) -> int:
    """Attempts at the end of the list that left the phase where it was; those that were recalled do not count."""
    reached = newest_checkpoint(node)
    count = 0
    for attempt in reversed(node.attempts):
        if attempt.resumed_step != reached:
            break
        count += not attempt.recalled
    return count


def newest_checkpoint(node: Node) -> int:
    """Step of the newest complete checkpoint of this phase; where it started if there is none."""
    return node.checkpoints[-1].step if node.checkpoints else node.first_step - 1
