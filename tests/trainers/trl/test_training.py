"""What a phase promises about its steps: the KL reference, the reward, the metrics, the parent, the validation."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tiny_phases import SMALL, adapters, attempt_of, exit_status, metrics
from trl_phases import run

from llmzero_hpc.errors import ConfigurationError, StorageError
from llmzero_hpc.search.metrics import STEP_METRICS
from llmzero_hpc.sections import Hardware
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path, complete_checkpoints
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.trl import evaluate, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.sections import FilesTask

pytestmark = pytest.mark.training


def child_of(make_spec: Callable[..., PhaseSpec], parent: PhaseSpec, name: str, **changes: float) -> PhaseSpec:
    return make_spec(
        name,
        replace(SMALL, **changes),
        first_step=parent.last_step + 1,
        total_steps=1,
        parent_adapter=checkpoint_path(parent.checkpoints, parent.last_step),
    )


def test_kl_is_measured_against_the_base_after_resuming(make_spec: Callable[..., PhaseSpec]) -> None:
    parent = run(make_spec("parent", replace(SMALL, learning_rate=3e-2)))
    # A step too small to move anything: against the parent the divergence would be nothing.
    in_loss = run(child_of(make_spec, parent, "in_loss", learning_rate=1e-8, kl_coefficient=0.5))
    measured = run(child_of(make_spec, parent, "measured", learning_rate=1e-8, kl_coefficient=0.0))
    divergence = metrics(in_loss)[5]["kl"]
    assert divergence > 0.005
    # The same rollouts, by our own measurement with the adapter switched off.
    assert metrics(measured)[5]["kl"] == pytest.approx(divergence, rel=1e-3)


def test_a_new_phase_starts_at_its_parents_adapter_with_a_fresh_optimizer(make_spec: Callable[..., PhaseSpec]) -> None:
    parent = run(make_spec("parent"))
    still = run(child_of(make_spec, parent, "still", learning_rate=1e-8))
    assert list(adapters(still)) == [5]
    tensors = [_tensors(checkpoint_path(spec.checkpoints, spec.last_step)) for spec in (parent, still)]
    for name, tensor in tensors[0].items():
        assert tensor.sub(tensors[1][name]).abs().max() < 1e-6, name
    moved = run(child_of(make_spec, parent, "moved"))
    assert adapters(moved) != adapters(still)
    assert list(metrics(moved)) == [5]


def _tensors(folder: Path) -> dict:  # type: ignore[type-arg]
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")  # type: ignore[no-any-return]


def test_every_step_reports_the_canonical_metrics(make_spec: Callable[..., PhaseSpec]) -> None:
    spec = run(make_spec(configuration=replace(SMALL, kl_coefficient=1e-3)))
    rows = [json.loads(line) for line in attempt_of(spec, 1).metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        values = row["metrics"]
        validated = {"val_score", "val_score/short", "val_score/long"} if row["step"] % 2 == 0 else set()
        assert values.keys() == (STEP_METRICS.keys() - {"val_score"}) | validated
        assert all(math.isfinite(value) for value in values.values())
        assert values["learning_rate"] == SMALL.learning_rate
        assert values["epoch"] == pytest.approx(row["step"] / 6)
        assert 0 < values["response_length_mean"] <= 6
        assert row["raw"]["completions/mean_length"] == values["response_length_mean"]
        assert values["policy_loss"] == pytest.approx(row["raw"]["loss"] - 1e-3 * values["kl"])


def test_training_raises_the_reward(make_spec: Callable[..., PhaseSpec]) -> None:
    wider = replace(SMALL, batch_size=8, rollouts=8)
    rows = metrics(run(make_spec(configuration=wider, total_steps=10, validate_every_steps=10)))
    rewards = [rows[step]["reward_mean"] for step in range(1, 11)]
    assert sum(rewards[-3:]) > 1.2 * sum(rewards[:3]), rewards


def test_a_response_cut_off_at_the_limit_is_said_to_be_truncated(
    make_spec: Callable[..., PhaseSpec], task: FilesTask, tmp_path: Path
) -> None:
    reward = tmp_path / "reward.py"
    seen = tmp_path / "seen.jsonl"
    reward.write_text(
        "import json\n"
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        f"    with open({str(seen)!r}, 'a') as file:\n"
        "        file.write(json.dumps([extra_info['truncated'], solution_str]) + '\\n')\n"
        "    return 0.0\n"
    )
    spec = make_spec(task=task.model_copy(update={"reward": reward}), total_steps=1, validation_max_response_length=7)
    values = metrics(run(spec))[1]
    calls = [json.loads(line) for line in seen.read_text().splitlines()]
    rollouts, validations = calls[:16], calls[16:]
    assert len(validations) == 10
    assert sum(truncated for truncated, _ in rollouts) / 16 == values["response_clip_ratio"]
    assert all("<eos>" not in text and "<pad>" not in text for _, text in calls)


def test_micro_batches_change_no_more_than_rounding(make_spec: Callable[..., PhaseSpec]) -> None:
    whole = run(make_spec("whole", total_steps=1))
    divided = run(make_spec("divided", total_steps=1, hardware=Hardware(device="cpu", micro_batch_size=2)))
    tensors = [_tensors(checkpoint_path(spec.checkpoints, 1)) for spec in (whole, divided)]
    for name, tensor in tensors[0].items():
        assert tensor.sub(tensors[1][name]).abs().max() < 2e-3, name


def test_an_evaluation_repeats_the_validation_score(make_spec: Callable[..., PhaseSpec], tmp_path: Path) -> None:
    phase = run(make_spec())
    results = {}
    for split in (Split.VALIDATION, Split.TEST):
        spec = EvaluationSpec(
            search="small",
            node=0,
            step=4,
            seed=1,
            model=phase.model,
            task=phase.task,
            split=split,
            adapter=checkpoint_path(phase.checkpoints, 4),
            max_response_length=phase.validation_max_response_length,
            hardware=phase.hardware,
            rehearsal=phase.rehearsal,
            result=tmp_path / f"{split}.json",
        )
        file = tmp_path / f"{split}.yaml"
        write_specification(file, spec)
        assert evaluate.main([str(file), str(tmp_path)]) == 0
        results[split] = json.loads(spec.result.read_bytes())
    validated = metrics(phase)[4]
    assert results[Split.VALIDATION]["score"] == pytest.approx(validated["val_score"])
    assert results[Split.VALIDATION]["rows"] == 10
    for source, score in results[Split.VALIDATION]["subtask_scores"].items():
        assert score == pytest.approx(validated[f"val_score/{source}"])
    assert results[Split.TEST]["rows"] == 6


def test_what_the_user_can_cause_is_one_line_and_an_exit_code(
    make_spec: Callable[..., PhaseSpec], task: FilesTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    return 1 / 0\n"
    )
    for name, changes, words in (
        ("reward", {"task": task.model_copy(update={"reward": reward})}, "ZeroDivisionError"),
        ("parent", {"parent_adapter": tmp_path / "nowhere"}, "holds no adapter"),
        ("modules", {"configuration": replace(SMALL, target_modules="no_such_layer")}, "target_modules"),
        ("model", {"model": str(tmp_path / "no_model")}, "no_model"),
    ):
        spec = make_spec(name, **changes)
        file = tmp_path / f"{name}.yaml"
        write_specification(file, spec)
        assert train.main([str(file), str(attempt_of(spec, 1).path)]) == ConfigurationError.exit_code
        error = capsys.readouterr().err
        assert words in error, error
        assert "Traceback" not in error


def test_the_program_ends_with_the_exit_code_and_says_it(make_spec: Callable[..., PhaseSpec], tmp_path: Path) -> None:
    """It ends without the destructors of native code, and yet as it should."""
    spec = make_spec(model=str(tmp_path / "no_model"))
    file = tmp_path / "config.yaml"
    write_specification(file, spec)
    command = [sys.executable, "-m", "llmzero_hpc.trainers.trl.train", str(file), str(attempt_of(spec, 1).path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ConfigurationError.exit_code
    assert "no_model" in done.stderr
    broken = subprocess.run(command[:3], capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert broken.stderr.rstrip().splitlines()[-1].startswith("ValueError"), "a fault of ours has its traceback"


@pytest.mark.parametrize("largest", [500, 3000, 9000])
def test_a_full_disk_is_a_storage_error(make_spec: Callable[..., PhaseSpec], tmp_path: Path, largest: int) -> None:
    spec = make_spec()
    file = tmp_path / "config.yaml"
    write_specification(file, spec)
    attempt = attempt_of(spec, 1).path

    def with_small_files() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        return train.main([str(file), str(attempt)])

    assert exit_status(with_small_files) == StorageError.exit_code
    assert complete_checkpoints(spec.checkpoints) in {(), (2,)}
    run(spec, attempt=2)
    assert list(adapters(spec)) == [2, 4]
