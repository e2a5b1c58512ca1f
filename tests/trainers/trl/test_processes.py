"""Several processes and ZeRO 2 and 3 make real steps on a CPU and continue themselves, as they would on GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
from tiny_phases import SMALL, adapters, attempt_of, metrics
from trl_phases import run

from llmzero_hpc.sections import Hardware
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.trl.trainer import TrlTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.trainers.base import PhaseSpec

pytestmark = [pytest.mark.training, pytest.mark.slow, pytest.mark.timeout(5000)]


def command(spec: PhaseSpec, attempt: int) -> None:
    """Runs an attempt by the command; building DeepSpeed's CPU operator takes a minute the first time."""
    file = spec.checkpoints.parent / "config.yaml"
    directory = attempt_of(spec, attempt).path
    write_specification(file, spec)
    plan = TrlTrainer().plan(file, directory)
    done = subprocess.run(
        plan.command, env={**os.environ, **plan.environment}, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[:6000]


@pytest.mark.parametrize(("stage", "processes"), [(2, 0), (3, 2)])
def test_zero_trains_three_steps_and_continues_from_its_own_state(
    make_spec: Callable[..., PhaseSpec], stage: Literal[2, 3], processes: int
) -> None:
    pytest.importorskip("deepspeed")
    hardware = Hardware(device="cpu", deepspeed_stage=stage, gpus=processes)
    whole = make_spec("whole", hardware=hardware, total_steps=3, validate_every_steps=2)
    command(whole, 1)
    assert list(adapters(whole)) == [2, 3]
    assert metrics(whole)[3]["grad_norm"] > 0
    assert "val_score" in metrics(whole)[3]

    broken = make_spec("broken", hardware=hardware, total_steps=2, validate_every_steps=2)
    command(broken, 1)
    shutil.rmtree(broken.checkpoints / "step_2")
    # The rest of a phase that was killed after its second step.
    broken = make_spec("broken", hardware=hardware, total_steps=3, validate_every_steps=2)
    command(broken, 2)
    assert adapters(broken)[3] == adapters(whole)[3]
    assert metrics(broken, attempts=2) == metrics(whole)


def test_two_processes_share_a_phase_and_one_writes_it(make_spec: Callable[..., PhaseSpec]) -> None:
    both = make_spec("both", hardware=Hardware(device="cpu", gpus=2), total_steps=3, validate_every_steps=2)
    command(both, 1)
    rows = metrics(both)
    assert list(rows) == [1, 2, 3]
    assert list(adapters(both)) == [2, 3]
    assert len(attempt_of(both, 1).metrics.read_text().splitlines()) == 3
    # Validation is shared out and put together again: one process alone scores the same adapter the same.
    alone = make_spec(
        "alone",
        replace(SMALL, learning_rate=1e-8),
        first_step=4,
        total_steps=1,
        parent_adapter=checkpoint_path(both.checkpoints, 3),
    )
    run(alone)
    assert metrics(alone)[4]["val_score"] == pytest.approx(rows[3]["val_score"])
