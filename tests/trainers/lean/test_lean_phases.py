"""What a phase of the lean trainer promises: files, metrics, continuation after a kill, evaluation, modelled cost."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from lean_phases import killed_at, run
from tiny_phases import CLOCKED, SMALL, adapters, attempt_of, exit_status, metrics

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.errors import ConfigurationError, StorageError
from llmzero_hpc.search.metrics import STEP_METRICS
from llmzero_hpc.sections import Hardware
from llmzero_hpc.store.metrics_log import read_series
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path, complete_checkpoints, saved_steps
from llmzero_hpc.trainers.lean import evaluate, train
from llmzero_hpc.trainers.lean.cost import Work, modelled_seconds
from llmzero_hpc.trainers.registry import make_trainer
from llmzero_hpc.trainers.specification import write_specification

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.sections import FilesTask
    from llmzero_hpc.trainers.base import PhaseSpec

pytestmark = pytest.mark.training

MODELLED = Hardware(device="cpu", cost="modelled")
MOMENTS = [
    ("reward", 20),  # in the second step, before anything was saved
    ("rename", 1),  # the checkpoint of step 2 is whole, its name is not there
    ("after:rename", 1),  # the checkpoint is there, the state is not
    ("after:rename", 3),  # both are there, the validation is due
    ("row", 2),  # validated, and the row is due
    ("after:row", 2),  # on the way to step 3
    ("after:row", 4),  # everything done, the exit code is lost
]


def all_metrics(spec: PhaseSpec, attempts: int = 1) -> dict[int, dict[str, float]]:
    paths = [attempt_of(spec, number).metrics for number in range(1, attempts + 1)]
    return {row.step: dict(row.values) for row in read_series([path for path in paths if path.is_file()]).rows}


def test_with_modelled_cost_everything_repeats_to_the_digit_after_any_kill(make_spec: Callable[..., PhaseSpec]) -> None:
    unbroken = run(make_spec("unbroken", hardware=MODELLED))
    assert list(adapters(unbroken)) == [2, 4]
    for number, (moment, occurrence) in enumerate(MOMENTS):
        broken = make_spec(f"broken{number}", hardware=MODELLED)
        assert killed_at(broken, 1, moment, occurrence) == -signal.SIGKILL, moment
        validated = {step for step, values in metrics(broken).items() if "val_score" in values}
        assert validated <= set(adapters(broken)), (moment, occurrence)
        run(broken, attempt=2)
        assert adapters(broken) == adapters(unbroken), (moment, occurrence)
        assert all_metrics(broken, attempts=2) == all_metrics(unbroken), (moment, occurrence)
        assert saved_steps(broken.training_state) == (4,), (moment, occurrence)
    assert adapters(run(make_spec("other", seed=2, total_steps=2))) != {2: adapters(unbroken)[2]}


def test_every_step_reports_the_canonical_metrics(make_spec: Callable[..., PhaseSpec]) -> None:
    spec = run(make_spec(configuration=replace(SMALL, kl_coefficient=1e-3), hardware=MODELLED))
    rows = [json.loads(line) for line in attempt_of(spec, 1).metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        values, raw = row["metrics"], row["raw"]
        validated = {"val_score", "val_score/short", "val_score/long"} if row["step"] % 2 == 0 else set()
        assert values.keys() == (STEP_METRICS.keys() - {"val_score"}) | validated
        assert all(math.isfinite(value) for value in values.values())
        assert values["epoch"] == pytest.approx(row["step"] / 6)
        work = Work(*(raw[f"work/{name}"] for name in Work.__slots__))
        assert 0 < work.decodings <= 6
        assert values["response_length_mean"] == work.generated / 16
        assert work.trained == work.scored > work.generated
        assert values["step_seconds"] == modelled_seconds(work)
        assert raw["wall_seconds"] > 0


def test_measured_cost_is_the_clock_s(make_spec: Callable[..., PhaseSpec]) -> None:
    spec = run(make_spec(total_steps=1))
    row = json.loads(attempt_of(spec, 1).metrics.read_text())
    assert row["metrics"]["step_seconds"] == row["raw"]["wall_seconds"]
    assert row["metrics"].keys() > CLOCKED


def test_training_raises_the_reward(make_spec: Callable[..., PhaseSpec]) -> None:
    wider = replace(SMALL, batch_size=8, rollouts=8)
    rows = metrics(run(make_spec(configuration=wider, total_steps=10, validate_every_steps=10)))
    rewards = [rows[step]["reward_mean"] for step in range(1, 11)]
    assert sum(rewards[-3:]) > 1.2 * sum(rewards[:3]), rewards


def test_kl_is_measured_against_the_base_after_resuming(make_spec: Callable[..., PhaseSpec]) -> None:
    parent = run(make_spec("parent", replace(SMALL, learning_rate=3e-2)))
    still = {"first_step": 5, "total_steps": 1, "parent_adapter": checkpoint_path(parent.checkpoints, 4)}
    found = [
        metrics(run(make_spec(f"child{beta}", replace(SMALL, learning_rate=1e-8, kl_coefficient=beta), **still)))[5][
            "kl"
        ]
        for beta in (0.0, 0.5)
    ]
    assert found[0] > 0.005
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_adapters_are_taken_over_from_trl_and_given_back(make_spec: Callable[..., PhaseSpec]) -> None:
    from llmzero_hpc.trainers.trl.train import train as train_by_trl

    theirs = make_spec("theirs", total_steps=2)
    train_by_trl(theirs, attempt_of(theirs, 1))
    still = replace(SMALL, learning_rate=1e-8)
    parent = checkpoint_path(theirs.checkpoints, 2)
    ours = run(make_spec("ours", still, first_step=3, total_steps=1, parent_adapter=parent))
    parent = checkpoint_path(ours.checkpoints, 3)
    back = make_spec("back", still, first_step=4, total_steps=1, parent_adapter=parent)
    train_by_trl(back, attempt_of(back, 1))
    tensors = [_tensors(checkpoint_path(spec.checkpoints, spec.last_step)) for spec in (theirs, ours, back)]
    assert tensors[0].keys() == tensors[1].keys() == tensors[2].keys()
    for name, tensor in tensors[0].items():
        assert all(torch.allclose(tensor, other[name], atol=1e-6) for other in tensors[1:]), name
    scores = [metrics(spec)[spec.last_step]["val_score"] for spec in (theirs, ours, back)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert scores[0] == pytest.approx(scores[2], abs=0.02)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_evaluation_of_the_validation_split_repeats_the_validation(
    make_spec: Callable[..., PhaseSpec], tmp_path: Path
) -> None:
    phase = run(make_spec())
    spec = EvaluationSpec(
        search="small",
        node=0,
        step=4,
        seed=1,
        model=phase.model,
        task=phase.task,
        split=Split.VALIDATION,
        adapter=checkpoint_path(phase.checkpoints, 4),
        max_response_length=phase.validation_max_response_length,
        hardware=phase.hardware,
        rehearsal=phase.rehearsal,
        result=tmp_path / "result.json",
    )
    write_specification(tmp_path / "config.yaml", spec)
    assert evaluate.main([str(tmp_path / "config.yaml"), str(tmp_path)]) == 0
    result = json.loads(spec.result.read_bytes())
    assert result["score"] == metrics(phase)[4]["val_score"]
    assert result["rows"] == 10


def test_what_the_user_can_cause_is_one_line_and_an_exit_code(
    make_spec: Callable[..., PhaseSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, changes, words in (
        ("parent", {"parent_adapter": tmp_path / "nowhere"}, "holds no adapter"),
        ("model", {"model": str(tmp_path / "no_model")}, "no_model"),
        ("batch", {"configuration": replace(SMALL, batch_size=64)}, "batch_size"),
    ):
        spec = make_spec(name, **changes)
        file = tmp_path / f"{name}.yaml"
        write_specification(file, spec)
        assert train.main([str(file), str(attempt_of(spec, 1).path)]) == ConfigurationError.exit_code
        error = capsys.readouterr().err
        assert words in error, error
        assert "Traceback" not in error


def test_a_full_disk_is_a_storage_error(make_spec: Callable[..., PhaseSpec], tmp_path: Path) -> None:
    spec = make_spec()
    file = tmp_path / "config.yaml"
    write_specification(file, spec)
    attempt = attempt_of(spec, 1).path

    def with_small_files() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        return train.main([str(file), str(attempt)])

    assert exit_status(with_small_files) == StorageError.exit_code
    assert complete_checkpoints(spec.checkpoints) == ()
    run(spec, attempt=2)
    assert list(adapters(spec)) == [2, 4]


@pytest.fixture
def config(model_folder: Path, task: FilesTask) -> SearchConfig:
    return SearchConfig(name="small", trainer="lean", model=str(model_folder), task=task, configuration=SMALL)


def test_a_search_is_checked_before_it_begins(config: SearchConfig, tmp_path: Path) -> None:
    trainer = make_trainer("lean")
    trainer.check(config)
    assert trainer.train_rows(config) == 24
    assert not trainer.problems(config, SMALL)
    found = trainer.problems(config, replace(SMALL, target_modules="lm_head", overrides={"top_k": 5}))
    assert [problem.partition(":")[0] for problem in found] == ["overrides.top_k", "target_modules"]
    other = tmp_path / "other"
    other.mkdir()
    settings = json.loads((_folder(config) / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(settings | {"model_type": "llama"}))
    for changes, words in (
        ({"hardware": Hardware(gpus=1)}, "takes one CPU"),
        ({"model": str(other)}, "knows plain Qwen3 models"),
        ({"configuration": replace(SMALL, batch_size=25, mini_batches=1)}, "only 24 training rows"),
        ({"configuration": replace(SMALL, max_response_length=510)}, "that is more than the model takes"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            trainer.check(config.model_copy(update=changes))


def _folder(config: SearchConfig) -> Path:
    from llmzero_hpc.tasks.models import resolve_model

    return resolve_model(config.model)


def test_the_command_imports_little(make_spec: Callable[..., PhaseSpec], tmp_path: Path) -> None:
    """A phase of five seconds must not begin with four of imports."""
    spec = make_spec(total_steps=1)
    file, attempt = tmp_path / "config.yaml", attempt_of(spec, 1).path
    write_specification(file, spec)
    plan = make_trainer("lean").plan(file, attempt)
    assert str(attempt) in plan.command
    code = (
        f"import sys\nfrom llmzero_hpc.trainers.lean import train\n"
        f"assert train.main([{str(file)!r}, {str(attempt)!r}]) == 0\n"
        "heavy = {'transformers', 'trl', 'peft', 'datasets', 'accelerate', 'pandas'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **plan.environment})
    assert list(adapters(spec)) == [1]
