"""A phase that is killed at any moment continues itself and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tiny_phases import adapters, attempt_of, metrics
from trl_phases import killed_at, run

from llmzero_hpc.trainers.checkpoints import saved_steps
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.trl.trainer import TrlTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.trainers.base import PhaseSpec

pytestmark = pytest.mark.training

MOMENTS = [
    ("reward", 20),  # in the second step, before anything was saved
    ("rename", 1),  # the checkpoint of step 2 is whole, its name is not there
    ("rename", 2),  # the checkpoint is there, the state is not
    ("after:rename", 2),  # both are there, the validation is due
    ("progress", 2),  # validated, and nobody knows
    ("row", 2),  # validated, and the row is due
    ("after:row", 2),  # on the way to step 3
    ("reward", 60),  # in the third step
    ("rename", 4),  # step 4 again: a checkpoint without a state
    ("after:row", 4),  # everything done, the exit code is lost
]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(make_spec: Callable[..., PhaseSpec]) -> None:
    first, second = run(make_spec("first")), run(make_spec("second"))
    assert list(adapters(first)) == [2, 4]
    assert adapters(first) == adapters(second)
    assert metrics(first) == metrics(second)
    assert adapters(run(make_spec("other", seed=2, total_steps=2))) != {2: adapters(first)[2]}


def test_an_attempt_killed_at_any_moment_is_continued_to_the_same_bytes(make_spec: Callable[..., PhaseSpec]) -> None:
    unbroken = run(make_spec("unbroken"))
    for number, (moment, occurrence) in enumerate(MOMENTS):
        broken = make_spec(f"broken{number}")
        assert killed_at(broken, 1, moment, occurrence) == -signal.SIGKILL, moment
        run(broken, attempt=2)
        assert adapters(broken) == adapters(unbroken), (moment, occurrence)
        assert metrics(broken, attempts=2) == metrics(unbroken), (moment, occurrence)
        assert saved_steps(broken.training_state) == (4,), (moment, occurrence)


def test_a_row_with_a_validation_score_has_its_checkpoint_at_every_kill(make_spec: Callable[..., PhaseSpec]) -> None:
    for number, (moment, occurrence) in enumerate(MOMENTS[1:8]):
        broken = make_spec(f"broken{number}")
        killed_at(broken, 1, moment, occurrence)
        validated = {step for step, values in metrics(broken).items() if "val_score" in values}
        assert validated <= set(adapters(broken)), (moment, occurrence)


def test_two_kills_and_a_state_that_was_half_written(make_spec: Callable[..., PhaseSpec]) -> None:
    unbroken, broken = run(make_spec("unbroken")), make_spec("broken")
    killed_at(broken, 1, "after:row", 2)
    (broken.training_state / "step_3").mkdir()
    (broken.training_state / "step_3" / "optimizer.pt").write_bytes(b"half")
    killed_at(broken, 2, "reward", 12)
    run(broken, attempt=3)
    assert adapters(broken) == adapters(unbroken)
    assert metrics(broken, attempts=3) == metrics(unbroken)


@pytest.mark.slow
def test_the_command_killed_from_outside_is_continued_by_the_command(make_spec: Callable[..., PhaseSpec]) -> None:
    unbroken, broken = run(make_spec("unbroken", total_steps=30)), make_spec("broken", total_steps=30)
    broken.checkpoints.parent.mkdir()
    file = broken.checkpoints.parent / "config.yaml"
    write_specification(file, broken)

    first = attempt_of(broken, 1)
    plan = TrlTrainer().plan(file, first.path)
    assert str(first.path) in plan.command
    environment = {**os.environ, **plan.environment}
    with first.trainer_log.open("wb") as log:
        process = subprocess.Popen(plan.command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 500
        while not (first.metrics.is_file() and len(first.metrics.read_bytes().splitlines()) >= 5):
            assert process.poll() is None, first.trainer_log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert 30 not in adapters(broken)

    plan = TrlTrainer().plan(file, attempt_of(broken, 2).path)
    subprocess.run(plan.command, env=environment, check=True, capture_output=True, timeout=500)
    assert adapters(broken) == adapters(unbroken)
    assert metrics(broken, attempts=2) == metrics(unbroken)
