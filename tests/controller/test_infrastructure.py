"""What a machine, the network or a disk did to a phase: tried again, ever later, and in the end told as what it was."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from controller_world import World, small_config
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.cluster.base import JobObservation, JobState
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller.advance import JobReport, Policy, advance_attempt, advance_evaluation, retry_at
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.errors import ClusterError, ConfigurationError, StorageError
from llmzero_hpc.search.node import Attempt, CheckpointReference, Ending, Job, NodeStatus
from llmzero_hpc.search.tree import Evaluation
from llmzero_hpc.store.events import read_events
from llmzero_hpc.store.marker import Marker
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

if TYPE_CHECKING:
    from pathlib import Path

POLICY = Policy(grace_seconds=60.0, devices=4, max_attempts=3)
ATTEMPT = Attempt(number=1, name="a-1", intended_at=0.0, job=Job("17", "a-1", 5.0), started_at=10.0)
FAULT = "the GPUs lost each other: Watchdog caught collective operation timeout"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "search", small_config())


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        (None, Ending.INFRASTRUCTURE_ERROR),
        (JobState.COMPLETED, Ending.INFRASTRUCTURE_ERROR),
        (JobState.FAILED, Ending.INFRASTRUCTURE_ERROR),
        # What a trainer says as its job is taken from it, process by process, is not the cause.
        (JobState.CANCELLED, Ending.STOPPED),
        (JobState.TIME_LIMIT, Ending.TIME_LIMIT),
        (JobState.PREEMPTED, Ending.PREEMPTED),
        (JobState.NODE_FAILURE, Ending.NODE_FAILURE),
    ],
)
def test_the_clusters_own_word_comes_before_the_trainers(state: JobState | None, ending: Ending) -> None:
    job = None if state is None else JobObservation(state, 10.0)
    marker = Marker("a-1", 1, 0, 10.0, 110.0, ClusterError.exit_code, "infrastructure_error", FAULT)
    after = advance_attempt(ATTEMPT, JobReport(200.0, True, job, marker), POLICY)
    assert (after.ending, after.ended_at, after.exit_code) == (ending, 110.0, ClusterError.exit_code)
    assert after.problem == FAULT


def errors(*resumed: int, last: Ending = Ending.INFRASTRUCTURE_ERROR) -> tuple[Attempt, ...]:
    made = [
        replace(ATTEMPT, number=n, ending=Ending.INFRASTRUCTURE_ERROR, ended_at=100.0 * n, resumed_step=step)
        for n, step in enumerate(resumed, 1)
    ]
    return (*made[:-1], replace(made[-1], ending=last))


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ((), 0.0),
        (errors(0), 100.0 + 60),
        (errors(0, 0), 200.0 + 120),
        (errors(0, 0, 4), 300.0 + 60),
        (errors(*[0] * 20), 2000.0 + 1800),
        (errors(0, 0, last=Ending.NODE_FAILURE), 0.0),
    ],
)
def test_the_next_attempt_waits_longer_after_each_error_in_a_row(
    attempts: tuple[Attempt, ...], expected: float
) -> None:
    assert retry_at(attempts, 60.0) == expected


@given(st.lists(st.tuples(st.sampled_from(Ending), st.integers(0, 3)), max_size=12), st.floats(0, 1e4, allow_nan=False))
def test_no_pause_is_endless_and_only_errors_of_the_infrastructure_make_one(
    endings: list[tuple[Ending, int]], pause: float
) -> None:
    attempts = tuple(
        replace(ATTEMPT, number=n, ending=ending, ended_at=100.0 * n, resumed_step=step)
        for n, (ending, step) in enumerate(endings, 1)
    )
    at = retry_at(attempts, pause)
    if attempts and attempts[-1].ending is Ending.INFRASTRUCTURE_ERROR:
        assert 0 <= at - (attempts[-1].ended_at or 0.0) <= 1800.0
    else:
        assert at == 0.0


def test_a_phase_is_tried_again_from_its_checkpoint_after_a_pause_that_grows(world: World) -> None:
    world.tick()
    world.train(world.live()[0], [0.3])
    gaps = []
    for _ in range(3):
        world.end(world.live()[0], "infrastructure_error", ClusterError.exit_code, FAULT)
        ended = world.clock.now
        while not world.live():
            outcome = world.tick(5.0)
            assert world.tree[0].status in {NodeStatus.PROPOSED, NodeStatus.PENDING}
            assert world.live() or FAULT in outcome.waiting_for
            world.restart()
        gaps.append(world.clock.now - ended)
    # The first attempt had gained a checkpoint, the second had not.
    assert gaps[0] == gaps[1] < 0.6 * gaps[2]
    assert [attempt.resumed_step for attempt in world.tree[0].attempts] == [0, 2, 2, 2]
    world.train(world.live()[0], [0.4, 0.5, 0.5])
    world.end(world.live()[0])
    world.tick()
    assert world.tree[0].status is NodeStatus.COMPLETED
    assert [event for event in read_events(world.directory) if "infrastructure error: " + FAULT in event.message]


def test_a_phase_that_the_infrastructure_fails_again_and_again_has_failed_and_says_why(world: World) -> None:
    for _ in range(3):
        world.tick(10_000.0)
        world.train(world.live()[0], [])
        world.end(world.live()[0], "infrastructure_error", StorageError.exit_code, "the disk is full")
    world.tick()
    node = world.tree[0]
    assert node.status is NodeStatus.FAILED
    assert node.problem == (
        "3 attempts in a row gained no checkpoint; the last ended as infrastructure error: the disk is full"
    )
    assert [event for event in read_events(world.directory) if node.problem in event.message]


def test_a_mistake_in_the_configuration_fails_the_phase_at_once_and_says_why(world: World) -> None:
    world.tick()
    world.train(world.live()[0], [0.3])
    world.end(world.live()[0], "error", ConfigurationError.exit_code, "a GPU ran out of memory: CUDA out of memory")
    world.tick()
    node = world.tree[0]
    assert (node.status, len(node.attempts)) == (NodeStatus.FAILED, 1)
    assert node.problem == "the trainer exited with code 3: a GPU ran out of memory: CUDA out of memory"


def test_an_evaluation_is_tried_again_as_well() -> None:
    evaluation = Evaluation(CheckpointReference(1, 40), "test", (ATTEMPT,))
    failed = replace(ATTEMPT, ending=Ending.INFRASTRUCTURE_ERROR, exit_code=10, problem=FAULT)
    assert not advance_evaluation(evaluation, failed, None, POLICY).is_over
    last = advance_evaluation(evaluation, replace(failed, number=POLICY.max_attempts), None, POLICY)
    assert last.problem.endswith(FAULT)


def test_the_test_score_waits_for_its_next_attempt(world: World) -> None:
    world = World(world.directory.root.parent / "short", small_config(budget={"iterations": 1}))
    world.tick()
    world.train(world.live()[0], [0.3, 0.3, 0.3, 0.3])
    world.end(world.live()[0])
    world.tick()
    (evaluation,) = world.live()
    world.train(evaluation, [])
    world.end(evaluation, "infrastructure_error", ClusterError.exit_code, FAULT)
    world.tick(1.0)
    assert not world.live()
    world.tick(10_000.0)
    assert len(world.live()) == 1
    assert world.finish([0.4]).finished
    assert world.tree.evaluation is not None
    assert world.tree.evaluation.score is not None


@pytest.mark.slow
def test_a_real_phase_whose_folder_cannot_be_written_goes_on_when_it_can(tmp_path: Path) -> None:
    settings = {
        "name": "full",
        "trainer": "rehearsal",
        "model": "none",
        "task": {"name": "chains"},
        "configuration": {"batch_size": 16, "epochs": 1},
        "early_stop": {"enabled": False},
        "budget": {"iterations": 1},
        "rehearsal": {"step_seconds": 0.0, "train_rows": 64},
        "tick_seconds": 0.05,
        "live_views": False,
        "max_attempts": 20,
    }
    config = SearchConfig.model_validate(settings)
    directory = SearchDirectory.create(tmp_path / "search", SearchRecord.new(config, 64, time.time()))
    phase = directory.phase(0)
    phase.create()
    phase.training_state.write_bytes(b"in the way")

    def clear_away(_outcome: object) -> None:
        (node,) = directory.read_tree()
        if len(node.attempts) > 1 and phase.training_state.is_file():
            phase.training_state.unlink()

    with Daemon(directory) as daemon:
        assert daemon.loop(after_tick=clear_away).finished
    (node,) = directory.read_tree()
    assert node.status is NodeStatus.COMPLETED
    *failed, last = node.attempts
    assert {attempt.ending for attempt in failed} == {Ending.INFRASTRUCTURE_ERROR}
    assert {attempt.exit_code for attempt in failed} == {StorageError.exit_code}
    assert all("training_state" in attempt.problem for attempt in failed)
    assert last.ending is Ending.COMPLETED
