"""Every ending of an attempt, by its witnesses: pure tables, no cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmzero_hpc.cluster.base import Charge, JobObservation, JobState
from llmzero_hpc.controller.advance import (
    JobReport,
    Policy,
    advance_attempt,
    advance_evaluation,
    advance_node,
    attempts_without_progress,
    is_leftover,
    settled_charge,
    with_progress,
)
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import (
    Attempt,
    Checkpoint,
    CheckpointReference,
    Ending,
    Job,
    Node,
    NodeStatus,
    StopDecision,
    TransitionKind,
)
from llmzero_hpc.search.tree import Evaluation
from llmzero_hpc.store.marker import Marker

POLICY = Policy(grace_seconds=60.0, devices=4, max_attempts=3)
ATTEMPT = Attempt(number=1, name="a-1", intended_at=0.0, job=Job("17", "a-1", 5.0), started_at=10.0)


def marker(outcome: str, exit_code: int = 0, name: str = "a-1") -> Marker:
    return Marker(
        name=name, attempt=1, restart=0, started_at=10.0, ended_at=110.0, exit_code=exit_code, outcome=outcome
    )


def report(
    state: JobState | None, written: Marker | None = None, *, now: float = 200.0, answered: bool = True
) -> JobReport:
    return JobReport(now, answered, None if state is None else JobObservation(state, 10.0), written)


@pytest.mark.parametrize(
    ("state", "written", "ending"),
    [
        (None, marker("completed"), Ending.COMPLETED),
        (JobState.COMPLETED, marker("completed"), Ending.COMPLETED),
        (JobState.FAILED, marker("error", 3), Ending.ERROR),
        (JobState.TIME_LIMIT, marker("terminated", -15), Ending.TIME_LIMIT),
        (JobState.PREEMPTED, marker("terminated", -15), Ending.PREEMPTED),
        (JobState.NODE_FAILURE, marker("terminated", -15), Ending.NODE_FAILURE),
        (JobState.CANCELLED, marker("terminated", -15), Ending.STOPPED),
        (None, marker("terminated", -15), Ending.STOPPED),
    ],
)
def test_two_witnesses_end_an_attempt_at_once(state: JobState | None, written: Marker, ending: Ending) -> None:
    after = advance_attempt(ATTEMPT, report(state, written), POLICY)
    assert (after.ending, after.ended_at, after.exit_code) == (ending, 110.0, written.exit_code)
    assert after.device_seconds == 100.0 * 4


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        (None, Ending.VANISHED),
        (JobState.COMPLETED, Ending.VANISHED),
        (JobState.FAILED, Ending.VANISHED),
        (JobState.CANCELLED, Ending.STOPPED),
        (JobState.TIME_LIMIT, Ending.TIME_LIMIT),
        (JobState.PREEMPTED, Ending.PREEMPTED),
        (JobState.NODE_FAILURE, Ending.NODE_FAILURE),
    ],
)
def test_the_cluster_alone_is_believed_after_the_grace_time(state: JobState | None, ending: Ending) -> None:
    waiting = advance_attempt(ATTEMPT, report(state, now=200.0), POLICY)
    assert waiting.missing_since == 200.0
    assert advance_attempt(waiting, report(state, now=259.0), POLICY).ending is None
    after = advance_attempt(waiting, report(state, now=260.0), POLICY)
    assert (after.ending, after.ended_at) == (ending, 200.0)
    assert after.device_seconds == 190.0 * 4


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING])
def test_a_live_job_is_not_over_whatever_its_marker_says(state: JobState) -> None:
    after = advance_attempt(replace(ATTEMPT, missing_since=3.0), report(state, marker("completed")), POLICY)
    assert after.ending is None
    assert after.missing_since is None


def test_a_cluster_that_does_not_answer_says_nothing() -> None:
    assert advance_attempt(ATTEMPT, report(None, answered=False), POLICY) == ATTEMPT
    assert advance_attempt(ATTEMPT, report(None, marker("completed"), answered=False), POLICY).ending is None


def test_the_marker_of_another_attempt_is_no_witness() -> None:
    after = advance_attempt(ATTEMPT, report(None, marker("completed", name="a-2")), POLICY)
    assert after.ending is None


def test_an_attempt_that_is_over_or_not_submitted_stays_as_it_is() -> None:
    over = replace(ATTEMPT, ending=Ending.ERROR)
    assert advance_attempt(over, report(JobState.RUNNING), POLICY) == over
    intent = replace(ATTEMPT, job=None)
    assert advance_attempt(intent, report(None), POLICY) == intent


def requeued(**changes: object) -> Attempt:
    return replace(
        advance_attempt(ATTEMPT, JobReport(60.0, True, JobObservation(JobState.RUNNING, 10.0), None), POLICY), **changes
    )


def seen(
    state: JobState, started_at: float | None = None, restarts: int = 1, charge: Charge | None = None
) -> JobReport:
    return JobReport(
        200.0, True, JobObservation(state, started_at, restarts=restarts, charge=charge, hosts="n[1-2]"), None
    )


def test_a_requeued_job_waits_again_and_keeps_what_it_cost() -> None:
    waiting = advance_attempt(requeued(), seen(JobState.PENDING), POLICY)
    assert (waiting.started_at, waiting.restarts, waiting.hosts) == (None, 1, "n[1-2]")
    assert waiting.device_seconds == waiting.earlier_device_seconds == 50.0 * 4
    running = advance_attempt(waiting, seen(JobState.RUNNING, 150.0), POLICY)
    assert running.started_at == 150.0
    assert running.device_seconds == 50.0 * 4 + 50.0 * 4


def test_accounting_corrects_the_cost_of_the_runs_before() -> None:
    waiting = advance_attempt(requeued(), seen(JobState.PENDING, charge=Charge(260.0, final=False)), POLICY)
    assert advance_attempt(waiting, seen(JobState.RUNNING, 150.0), POLICY).device_seconds == 260.0 + 50.0 * 4


def test_the_marker_of_a_run_that_was_requeued_is_no_witness_unless_it_completed() -> None:
    once = advance_attempt(requeued(), seen(JobState.RUNNING, 150.0), POLICY)
    stale = advance_attempt(once, JobReport(300.0, True, None, marker("terminated", -15)), POLICY)
    assert stale.ending is None
    assert advance_attempt(once, JobReport(300.0, True, None, marker("completed")), POLICY).ending is Ending.COMPLETED


def test_the_final_charge_is_what_an_attempt_costs() -> None:
    done = JobObservation(JobState.COMPLETED, 10.0, charge=Charge(444.0, final=True))
    after = advance_attempt(ATTEMPT, JobReport(200.0, True, done, marker("completed")), POLICY)
    assert (after.device_seconds, after.accounted) == (444.0, True)
    early = replace(after, device_seconds=400.0, accounted=False)
    assert settled_charge(early, Charge(430.0, final=False)) == early
    assert settled_charge(early, None) == early
    assert settled_charge(early, Charge(444.0, final=True)) == after


@pytest.mark.parametrize(
    ("state", "written", "now", "expected"),
    [
        (JobState.RUNNING, marker("completed"), 171.0, True),
        (JobState.PENDING, marker("error", 3), 171.0, True),
        (JobState.RUNNING, marker("completed"), 169.0, False),
        (JobState.PENDING, marker("terminated", -15), 500.0, False),
        (JobState.COMPLETED, marker("completed"), 500.0, False),
        (JobState.RUNNING, None, 500.0, False),
        (None, marker("completed"), 500.0, False),
    ],
)
def test_a_job_that_outlives_its_phase_is_a_leftover(
    state: JobState | None, written: Marker | None, now: float, *, expected: bool
) -> None:
    assert is_leftover(ATTEMPT, report(state, written, now=now), POLICY) is expected


def node(**changes: object) -> Node:
    base = Node(
        id=1,
        kind=TransitionKind.EVOLVE,
        parent=0,
        seed=1,
        created_at=0.0,
        status=NodeStatus.RUNNING,
        resume=CheckpointReference(0, 30),
        configuration=Configuration(),
        total_steps=20,
        attempts=(ATTEMPT,),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def rows(*scores: tuple[int, float | None]) -> Series:
    return Series(tuple(MetricRow(step, {} if score is None else {"val_score": score}) for step, score in scores))


def test_a_checkpoint_counts_when_it_is_complete_validated_and_of_this_phase() -> None:
    series = rows((30, 0.9), (31, None), (35, 0.2), (40, 0.3), (45, 0.4), (47, None))
    seen = with_progress(node(), series, complete=(30, 35, 45))
    assert seen.checkpoints == (Checkpoint(35, 0.2), Checkpoint(45, 0.4))
    assert seen.last_step == 47


def test_nothing_after_a_stop_decision_counts() -> None:
    stopped = node(stop=StopDecision(40, "behind", "playbook", 1.0))
    seen = with_progress(stopped, rows((35, 0.2), (40, 0.3), (45, 0.9)), complete=(35, 40, 45))
    assert seen.checkpoints == (Checkpoint(35, 0.2), Checkpoint(40, 0.3))
    assert seen.last_step == 40


@pytest.mark.parametrize(
    ("ending", "changes", "status"),
    [
        (Ending.COMPLETED, {}, NodeStatus.COMPLETED),
        (Ending.ERROR, {}, NodeStatus.FAILED),
        (Ending.ERROR, {"cancel_requested": True}, NodeStatus.CANCELLED),
        (Ending.STOPPED, {"cancel_requested": True}, NodeStatus.CANCELLED),
        (Ending.STOPPED, {"stop": StopDecision(40, "", "", 0.0)}, NodeStatus.EARLY_STOPPED),
        (Ending.COMPLETED, {"stop": StopDecision(40, "", "", 0.0)}, NodeStatus.EARLY_STOPPED),
        (Ending.PREEMPTED, {}, NodeStatus.PROPOSED),
        (Ending.NODE_FAILURE, {}, NodeStatus.PROPOSED),
        (Ending.TIME_LIMIT, {}, NodeStatus.PROPOSED),
        (Ending.VANISHED, {}, NodeStatus.PROPOSED),
        (Ending.LAUNCH_FAILURE, {}, NodeStatus.PROPOSED),
        (Ending.STOPPED, {}, NodeStatus.PROPOSED),
    ],
)
def test_what_an_ending_makes_of_a_node(ending: Ending, changes: dict[str, object], status: NodeStatus) -> None:
    over = replace(ATTEMPT, ending=ending, resumed_step=30)
    assert advance_node(node(**changes), over, POLICY, hold=False).status is status
    assert advance_node(node(**changes), over, POLICY, hold=True).status is NodeStatus.RUNNING


def test_attempts_without_progress_are_counted_from_the_end() -> None:
    tries = tuple(
        replace(ATTEMPT, number=n, ending=Ending.PREEMPTED, resumed_step=s) for n, s in ((1, 30), (2, 35), (3, 35))
    )
    phase = node(attempts=tries, checkpoints=(Checkpoint(35, 0.1),))
    assert attempts_without_progress(phase) == 2
    failed = advance_node(
        replace(phase, attempts=(*tries, replace(tries[2], number=4))), replace(tries[2], number=4), POLICY, hold=False
    )
    assert failed.status is NodeStatus.FAILED
    assert "3 attempts in a row" in failed.problem


def test_an_intent_without_a_job_is_neither_pending_nor_running() -> None:
    intent = replace(ATTEMPT, job=None, started_at=None)
    waiting = node(status=NodeStatus.SUBMITTING, attempts=(intent,))
    assert advance_node(waiting, intent, POLICY, hold=False) == waiting


@pytest.mark.parametrize(
    ("ending", "number", "result", "score", "problem"),
    [
        (Ending.COMPLETED, 1, (0.5, {"a": 0.5}), 0.5, ""),
        (Ending.COMPLETED, 1, None, None, "without a result"),
        (Ending.ERROR, 1, None, None, "exited with code 3"),
        (Ending.PREEMPTED, 1, None, None, ""),
        (Ending.PREEMPTED, 3, None, None, "3 attempts"),
        (None, 1, None, None, ""),
    ],
)
def test_endings_of_an_evaluation(
    ending: Ending | None, number: int, result: tuple[float, dict[str, float]] | None, score: float | None, problem: str
) -> None:
    attempt = replace(ATTEMPT, number=number, ending=ending, exit_code=3)
    after = advance_evaluation(Evaluation(CheckpointReference(1, 40), "test", (ATTEMPT,)), attempt, result, POLICY)
    assert after.score == score
    assert problem in after.problem
    assert bool(problem) == bool(after.problem)
