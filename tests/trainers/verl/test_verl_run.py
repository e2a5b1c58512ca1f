"""Real phases of a tiny Qwen2 through the command that a job runs: live, killed, continued, evaluated."""

from __future__ import annotations

import json
import shlex
import signal
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from tiny_phases import phase_spec
from verl_phases import (
    MOST_ATTEMPTS,
    SMALL,
    attempt_of,
    attempt_rows,
    build_model,
    launched,
    rows_of,
    said,
    started,
    tried,
    weights_of,
    write_task,
)

from llmzero_hpc.errors import INFRASTRUCTURE_EXIT_CODES
from llmzero_hpc.search.metrics import STEP_METRICS
from llmzero_hpc.store.phase_directory import PhaseDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.verl.layout import Layout
from llmzero_hpc.trainers.verl.rendering import rendered
from llmzero_hpc.trainers.verl.trainer import VerlTrainer

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = [pytest.mark.verl, pytest.mark.training, pytest.mark.slow, pytest.mark.timeout(3600)]

WAIT_SECONDS = 1200
LAST = 12


@pytest.fixture(scope="module")
def first_phase(tmp_path_factory: pytest.TempPathFactory) -> PhaseSpec:
    root = tmp_path_factory.mktemp("search")
    folder = root / "phases" / "0000"
    folder.mkdir(parents=True)
    model, task = build_model(root / "model"), write_task(root / "task")
    return phase_spec(folder, model, task, configuration=SMALL, total_steps=LAST)


@dataclass(frozen=True)
class Interrupted:
    """A phase that was told to end once its second step was validated, as it stood then, and went on to its end.

    `stopped` and `last` are the numbers of the attempt that was told so, and of the one that made the last step.
    """

    spec: PhaseSpec
    stopped: int
    last: int
    exit_code: int
    rows: dict[int, dict[str, float]]
    weights: dict[int, bytes]


@pytest.fixture(scope="module")
def interrupted(first_phase: PhaseSpec, verl_python: str) -> Interrupted:
    number, process = 1, started(first_phase, verl_python)
    deadline = time.monotonic() + WAIT_SECONDS
    while 2 not in rows_of(first_phase, number):
        if process.poll() in INFRASTRUCTURE_EXIT_CODES and number < MOST_ATTEMPTS:
            number += 1
            process = started(first_phase, verl_python, number)
        assert process.poll() is None, said(attempt_of(first_phase, number))
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    exit_code = process.wait(timeout=60)
    rows = {step: dict(row.values) for step, row in rows_of(first_phase, number).items()}
    weights = weights_of(first_phase)
    last, ended = tried(lambda attempt: started(first_phase, verl_python, attempt), number + 1, WAIT_SECONDS)
    assert ended == 0, said(attempt_of(first_phase, last))
    return Interrupted(first_phase, number, last, exit_code, rows, weights)


def test_metrics_and_adapters_come_while_it_trains(interrupted: Interrupted) -> None:
    assert interrupted.exit_code == 128 + signal.SIGTERM
    assert {1, 2} <= interrupted.rows.keys()
    assert LAST not in interrupted.rows
    assert "val_score" not in interrupted.rows[1]
    assert set(STEP_METRICS) - set(interrupted.rows[2]) <= {"zero_std_fraction"}
    assert 2 in interrupted.weights


def test_the_next_attempt_goes_on_from_the_newest_state(interrupted: Interrupted) -> None:
    spec, before = interrupted.spec, interrupted.weights
    rows, weights = rows_of(spec, interrupted.last), weights_of(spec)
    validated = list(range(2, LAST + 1, 2))
    assert list(rows) == list(range(1, LAST + 1))
    assert [step for step, row in rows.items() if row.validation_score is not None] == validated
    assert list(weights) == validated
    assert {step: weights[step] for step in before} == before
    assert len(set(weights.values())) == len(validated)
    # The newest adapter may be one whose row was still to come, and the newest state one whose adapter was.
    later = range(interrupted.stopped + 1, interrupted.last + 1)
    again = min(step for number in later for step in attempt_rows(spec, number))
    assert max(before) <= again <= max(before) + 3
    assert all(rows[step].values == interrupted.rows[step] for step in range(1, again))
    assert [path.name for path in spec.training_state.glob("global_step_*")] == [f"global_step_{LAST}"]


def test_the_command_that_trained_lies_beside_the_attempt(interrupted: Interrupted) -> None:
    attempt = attempt_of(interrupted.spec, interrupted.last)
    told = shlex.split((attempt.path / "verl" / "command.sh").read_text())
    assert set(rendered(interrupted.spec, Layout.of_run(interrupted.spec.training_state, attempt))) <= set(told)


def test_a_validation_score_is_the_mean_over_all_rows(interrupted: Interrupted) -> None:
    values = rows_of(interrupted.spec, interrupted.last)[LAST].values
    assert values["val_score"] == pytest.approx((values["val_score/even/sums"] + values["val_score/odd"]) / 2)


def test_peft_loads_the_adapter_and_it_matters(interrupted: Interrupted) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    spec = interrupted.spec
    folder = checkpoint_path(spec.checkpoints, LAST)
    base: Any = AutoModelForCausalLM.from_pretrained(spec.model)
    tokens = torch.arange(3, 13)[None]
    before = base(tokens).logits
    adapted = PeftModel.from_pretrained(base, folder)
    settings = adapted.peft_config["default"]
    assert (settings.r, settings.lora_alpha) == (SMALL.lora_rank, SMALL.lora_alpha)
    assert all(bool(value.any()) for name, value in adapted.named_parameters() if "lora_" in name)
    assert not torch.equal(adapted(tokens).logits, before)
    read = json.loads((folder / "adapter_config.json").read_text())
    assert set(read["target_modules"]) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_an_evaluation_gives_the_score_of_the_phase(interrupted: Interrupted, verl_python: str) -> None:
    parent = interrupted.spec
    folder = PhaseDirectory(parent.checkpoints.parent.parent / f"validation_0000_{LAST}")
    spec = EvaluationSpec(
        search=parent.search,
        node=0,
        step=LAST,
        seed=1,
        model=parent.model,
        task=parent.task,
        split=Split.VALIDATION,
        adapter=checkpoint_path(parent.checkpoints, LAST),
        max_response_length=parent.validation_max_response_length,
        hardware=parent.hardware,
        rehearsal=parent.rehearsal,
        result=folder.result,
    )

    def start(number: int) -> subprocess.Popen[bytes]:
        attempt = folder.attempt(number)
        attempt.create()
        plan = VerlTrainer().plan_evaluation(folder.specification, attempt.path)
        return launched(plan, verl_python, attempt)

    folder.path.mkdir()
    write_specification(folder.specification, spec)
    last, exit_code = tried(start, 1, WAIT_SECONDS)
    assert exit_code == 0, said(folder.attempt(last))
    found, values = json.loads(spec.result.read_text()), rows_of(parent, interrupted.last)[LAST].values
    assert found["rows"] == 12
    assert found["score"] == pytest.approx(values["val_score"])
    assert found["subtask_scores"] == pytest.approx(
        {name: values[f"val_score/{name}"] for name in ("even/sums", "odd")}
    )


def test_a_reward_that_raises_ends_the_phase_with_one_clear_line(
    first_phase: PhaseSpec, verl_python: str, tmp_path: Path
) -> None:
    broken = replace(
        first_phase,
        task=write_task(tmp_path / "task", reward="def compute_score(*_, **__):\n    raise KeyError('answer')\n"),
        checkpoints=tmp_path / "0002" / "checkpoints",
        training_state=tmp_path / "0002" / "training_state",
    )
    broken.checkpoints.parent.mkdir()
    last, exit_code = tried(lambda attempt: started(broken, verl_python, attempt), 1, WAIT_SECONDS)
    assert exit_code == 3
    lines = attempt_of(broken, last).trainer_log.read_text(errors="replace").splitlines()
    assert [line for line in lines if line.startswith("error: ") and "reward" in line]
    assert not rows_of(broken, last)
