"""A real phase of VeRL that is killed again and again, in every part of it, and whose disk is full once.

All tests look at one phase: five attempts that something ended, and a last one that was left alone.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny_phases import phase_spec
from verl_jobs import Bystander, VerlJob, until
from verl_phases import MOST_ATTEMPTS, SMALL, attempt_rows, build_model, rows_of, weights_of, write_task

from llmzero_hpc.cluster.base import JobObservation, JobState
from llmzero_hpc.controller.advance import JobReport, Policy, advance_attempt, advance_node
from llmzero_hpc.errors import INFRASTRUCTURE_EXIT_CODES, ClusterError, StorageError
from llmzero_hpc.search import node
from llmzero_hpc.store.marker import Marker, read_marker
from llmzero_hpc.trainers.base import PhaseSpec
from llmzero_hpc.trainers.verl.layout import Layout
from llmzero_hpc.trainers.verl.state import is_whole, named_state, states, take_up

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.verl, pytest.mark.training, pytest.mark.slow, pytest.mark.timeout(1800)]

LAST, EVERY = 18, 2
DISK_BYTES, LEFT_BYTES = 2**20, 60 * 2**10
"""The whole of the small disk; what is left of it when it is full, which is less than a state and more than nothing."""
VICTIMS = {
    "driver": ("verl.trainer.main_ppo",),
    "worker": ("ray::WorkerDict",),
    "head": ("/gcs_server", "ray start --head"),
    "job": (),
}
"""Words of their command lines; none for the process of the job itself, which started all others."""
FULL = "full"


@dataclass(frozen=True)
class Attempt:
    """What was there before an attempt and after it.

    `unforeseen` is whether the infrastructure ended it before the test did, `alien` whether somebody else's Ray was as
    before.
    """

    number: int
    whole: int
    unfinished: tuple[int, ...]
    exit_code: int
    unforeseen: bool
    marker: Marker | None
    log: str
    survivors: list[str]
    alien: bool
    scored: dict[int, dict[str, float]]
    weights: dict[int, bytes]


@dataclass(frozen=True)
class Story:
    """The attempts by what ended them, `end` for the last; None where there was no small disk."""

    spec: PhaseSpec
    attempts: dict[str, Attempt | None]
    beside: Bystander


class SmallDisk:
    """The phase's states lie on it, where this machine lets us mount one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._ballast = folder, folder / ".ballast"
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
        try:
            self.is_there = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            self.is_there = False

    def fill(self) -> None:
        self._ballast.write_bytes(bytes(shutil.disk_usage(self._folder).free - LEFT_BYTES))

    def clear(self) -> None:
        self._ballast.unlink()

    def remove(self) -> None:
        if self.is_there:
            subprocess.run(["umount", "--lazy", str(self._folder)], check=True)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, verl_python: str) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("search")
    folder = root / "phases" / "0000"
    model, task = build_model(root / "model"), write_task(root / "task")
    spec = phase_spec(folder, model, task, configuration=SMALL, total_steps=LAST, validate_every_steps=EVERY)
    with ExitStack() as stack:
        disk = SmallDisk(spec.training_state)
        stack.callback(disk.remove)
        # Short names, as Ray's sockets lie in these folders.
        own, others = (Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r", dir="/tmp"))) for _ in "ab")
        beside = Bystander(verl_python, others)
        stack.callback(beside.end)
        beside.start()
        told = Story(spec, {}, beside)
        number = 1
        for what in (*VICTIMS, FULL, "end"):
            for _ in range(MOST_ATTEMPTS):
                attempt = told.attempts[what] = _attempt(told, what, number, verl_python, own, disk)
                number += attempt is not None
                if attempt is None or not attempt.unforeseen:
                    break
        yield told


def _attempt(told: Story, what: str, number: int, python: str, short: Path, disk: SmallDisk) -> Attempt | None:
    spec = told.spec
    if what == FULL and not disk.is_there:
        return None
    place = Layout(spec.training_state, spec.training_state)
    if what == FULL:
        take_up(place)  # as the attempt will: what this frees is room, too
        disk.fill()
    there = states(place)
    whole = max((step for step in there if is_whole(place.state(step))), default=0)
    job, unforeseen = VerlJob(spec, python, number, short), False
    try:
        until(lambda: bool(job.processes("ray::WorkerDict")) or job.process.poll() is not None, job.log)
        if what in VICTIMS:
            validated = (whole // EVERY + 1) * EVERY
            until(lambda: validated in rows_of(spec, number) or job.process.poll() is not None, job.log)
            unforeseen = job.process.poll() in INFRASTRUCTURE_EXIT_CODES
            victims = job.processes(*VICTIMS[what])
            for process in victims if VICTIMS[what] else [job.process]:
                process.kill()
        exit_code = job.process.wait(timeout=600)
        if what not in VICTIMS:
            foreseen = StorageError.exit_code if what == FULL else 0
            unforeseen = exit_code in INFRASTRUCTURE_EXIT_CODES - {foreseen}
        # The machine takes a moment to end what was killed.
        with suppress(AssertionError):
            until(lambda: not job.processes(), str, 30)
    finally:
        survivors = [" ".join(process.cmdline()) for process in job.processes()]
        job.end()
    if what == FULL:
        disk.clear()
    return Attempt(
        number,
        whole,
        tuple(step for step in there if step != whole),
        exit_code,
        unforeseen,
        read_marker(job.attempt),
        job.log(),
        survivors,
        told.beside.is_whole(),
        {step: dict(row.values) for step, row in rows_of(spec, number).items() if row.validation_score is not None},
        weights_of(spec),
    )


def _of(story: Story, what: str) -> Attempt:
    attempt = story.attempts[what]
    if attempt is None:
        pytest.skip("no small disk can be mounted here: that takes root")
    return attempt


ENDED = {
    "driver": (ClusterError, "VeRL was killed by SIGKILL"),
    "worker": (ClusterError, "a process of the job died without a word: "),
    "head": (None, "Ray has ended on "),
    FULL: (StorageError, "the disk is full or over quota: "),
}


@pytest.mark.parametrize("what", ENDED)
def test_what_ended_an_attempt_is_told_and_is_no_failure_of_the_phase(story: Story, what: str) -> None:
    kind, problem = ENDED[what]
    attempt = _of(story, what)
    assert attempt.marker is not None, attempt.log[-6000:]
    assert attempt.marker.outcome == "infrastructure_error", attempt.log[-6000:]
    assert attempt.marker.problem.startswith(problem)
    # Where Ray has died there is no trainer left to ask.
    assert attempt.exit_code == (kind.exit_code if kind else 128 + signal.SIGTERM)
    if kind:
        assert f"\nerror: {problem}" in attempt.log


def test_a_job_that_was_killed_has_left_no_word(story: Story) -> None:
    attempt = _of(story, "job")
    assert attempt.marker is None
    assert attempt.exit_code == -signal.SIGKILL


@pytest.mark.parametrize("what", [*VICTIMS, FULL])
def test_the_controller_tries_the_same_phase_again(story: Story, what: str) -> None:
    attempt = _of(story, what)
    policy = Policy(grace_seconds=60.0, devices=1, max_attempts=2)
    name = f"lz-small-0-{attempt.number}"
    live = node.Attempt(attempt.number, name, 0.0, job=node.Job("1", name, 0.0), started_at=1.0, missing_since=1.0)
    seen = JobReport(2.0**32, True, JobObservation(JobState.FAILED, 1.0), attempt.marker)
    over = advance_attempt(live, seen, policy)
    assert over.ending is (node.Ending.VANISHED if attempt.marker is None else node.Ending.INFRASTRUCTURE_ERROR)
    phase = node.Node(0, node.TransitionKind.SCRATCH, None, 1, 0.0, node.NodeStatus.RUNNING, attempts=(live,))
    assert advance_node(phase, over, policy, hold=False).status is node.NodeStatus.PROPOSED


@pytest.mark.parametrize("what", [*VICTIMS, FULL, "end"])
def test_nothing_survives_a_job_and_nobody_else_is_touched(story: Story, what: str) -> None:
    attempt = _of(story, what)
    assert attempt.survivors == []
    assert attempt.alien


def test_somebody_elses_ray_answers_still(story: Story) -> None:
    assert story.beside.answers()


@pytest.mark.parametrize("what", [*VICTIMS, FULL, "end"])
def test_an_attempt_begins_at_the_newest_whole_state(story: Story, what: str) -> None:
    attempt = _of(story, what)
    made = attempt_rows(story.spec, attempt.number)
    # The state's own row is written again where its score was not known yet.
    assert min(made, default=attempt.whole) in {attempt.whole, attempt.whole + 1}
    before = [other for other in story.attempts.values() if other and other.number < attempt.number]
    assert all(max(other.scored, default=0) <= attempt.whole for other in before)
    if what in VICTIMS:
        assert max(attempt.scored) > attempt.whole


def test_half_a_state_is_left_by_a_full_disk_and_never_used(story: Story) -> None:
    full, end = _of(story, FULL), _of(story, "end")
    assert end.unfinished == (full.whole + EVERY,)
    assert end.whole == full.whole
    assert max(full.scored) == max(full.weights) == full.whole


def test_what_was_scored_once_stays_and_the_phase_ends_whole(story: Story) -> None:
    end = _of(story, "end")
    assert end.marker is not None
    assert (end.exit_code, end.marker.outcome) == (0, "completed"), end.log[-6000:]
    assert list(rows_of(story.spec, end.number)) == list(range(1, LAST + 1))
    validated = list(range(EVERY, LAST + 1, EVERY))
    assert list(end.scored) == list(end.weights) == validated
    assert len(set(end.weights.values())) == len(validated)
    for attempt in filter(None, story.attempts.values()):
        assert {step: end.scored[step] for step in attempt.scored} == attempt.scored
        assert {step: end.weights[step] for step in attempt.scored} == {
            step: attempt.weights[step] for step in attempt.scored
        }
    place = Layout(story.spec.training_state, story.spec.training_state)
    assert states(place) == (LAST,)
    assert named_state(place) == LAST
    assert is_whole(place.state(LAST))
