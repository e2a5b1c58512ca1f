"""The rehearsal as a process: the files of a real phase, kills included, and SIMULATED on all of them."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.metrics import STEP_METRICS
from llmzero_hpc.sections import ChainsTask, Hardware, Rehearsal
from llmzero_hpc.store.atomic import make_folder
from llmzero_hpc.store.metrics_log import read_series
from llmzero_hpc.store.phase_directory import PhaseDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec
from llmzero_hpc.trainers.checkpoints import ADAPTER_FILES, checkpoint_path, complete_checkpoints
from llmzero_hpc.trainers.registry import make_trainer
from llmzero_hpc.trainers.rehearsal import RehearsalTrainer
from llmzero_hpc.trainers.specification import write_specification

if TYPE_CHECKING:
    from pathlib import Path

TRAINER = RehearsalTrainer()
CONFIG = SearchConfig(name="a", model="builtin:chains", task=ChainsTask(), trainer="rehearsal")


def phase(root: Path, **changes: object) -> PhaseSpec:
    folder = PhaseDirectory(root)
    spec = PhaseSpec(
        search="a",
        node=0,
        seed=5,
        model="builtin:chains",
        task=ChainsTask(),
        configuration=Configuration(batch_size=16, max_response_length=32, learning_rate=1e-3),
        first_step=1,
        total_steps=25,
        validate_every_steps=10,
        validation_max_response_length=64,
        parent_adapter=None,
        checkpoints=folder.checkpoints,
        training_state=folder.training_state,
        hardware=Hardware(),
        rehearsal=Rehearsal(step_seconds=0.0, failure_rate=0.0),
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def start(root: Path, spec: PhaseSpec, attempt: int = 1) -> subprocess.Popen[str]:
    folder = PhaseDirectory(root)
    make_folder(folder.attempt(attempt).path)
    write_specification(folder.specification, spec)
    command = TRAINER.plan(folder.specification, folder.attempt(attempt).path).command
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    log, _ = process.communicate()
    return process.returncode, log


def outcome(root: Path) -> tuple[object, dict[str, bytes]]:
    """Everything that a phase leaves for others: its series, and the bytes of its adapters."""
    folder = PhaseDirectory(root)
    series = read_series([attempt.metrics for attempt in folder.attempts()])
    adapters = {
        f"{step}/{name}": (checkpoint_path(folder.checkpoints, step) / name).read_bytes()
        for step in complete_checkpoints(folder.checkpoints)
        for name in ADAPTER_FILES
    }
    return series, adapters


def test_a_phase_leaves_checkpoints_and_metrics_and_says_that_they_are_simulated(tmp_path: Path) -> None:
    code, log = finished(start(tmp_path, phase(tmp_path)))
    assert code == 0
    assert log.startswith("SIMULATED")
    folder = PhaseDirectory(tmp_path)
    assert complete_checkpoints(folder.checkpoints) == (10, 20, 25)
    description = json.loads((checkpoint_path(folder.checkpoints, 10) / "adapter_config.json").read_text())
    assert description["simulated"] is True
    series = read_series([folder.attempt(1).metrics])
    assert [row.step for row in series.rows] == list(range(1, 26))
    assert [row.step for row in series.rows if row.validation_score is not None] == [10, 20, 25]
    assert {"val_score", "val_score/short", "val_score/long"} <= series.rows[-1].values.keys()
    assert STEP_METRICS.keys() <= series.rows[-1].values.keys()
    for line in folder.attempt(1).metrics.read_text().splitlines():
        assert "SIMULATED" in json.loads(line)["raw"]


def test_the_same_phase_gives_the_same_curves_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        finished(start(tmp_path / name, phase(tmp_path / name, seed=seed)))
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert outcome(tmp_path / "a")[0] != outcome(tmp_path / "c")[0]


@pytest.mark.parametrize("rows", [1, 9, 10, 13, 24])
def test_a_phase_killed_and_continued_ends_as_an_unbroken_one(tmp_path: Path, rows: int) -> None:
    slow = Rehearsal(step_seconds=0.02, failure_rate=0.0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = start(whole, phase(whole, rehearsal=slow))
    killed = start(broken, phase(broken, rehearsal=slow))
    metrics = PhaseDirectory(broken).attempt(1).metrics
    deadline = time.monotonic() + 300
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < rows:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    assert finished(start(broken, phase(broken, rehearsal=slow), attempt=2))[0] == 0
    assert finished(unbroken)[0] == 0
    assert outcome(broken) == outcome(whole)
    second = read_series([PhaseDirectory(broken).attempt(2).metrics])
    assert second.rows[0].step >= rows // 10 * 10


def test_a_child_starts_from_its_parents_adapter(tmp_path: Path) -> None:
    parent, child, scratch = (tmp_path / name for name in ("parent", "child", "scratch"))
    finished(start(parent, phase(parent, total_steps=100)))
    adapter = checkpoint_path(PhaseDirectory(parent).checkpoints, 100)
    assert finished(start(child, phase(child, first_step=101, parent_adapter=adapter)))[0] == 0
    finished(start(scratch, phase(scratch, first_step=101)))
    assert complete_checkpoints(PhaseDirectory(child).checkpoints) == (110, 120, 125)

    def score(root: Path) -> float:
        return read_series([PhaseDirectory(root).attempt(1).metrics]).points("val_score")[-1][1]

    assert score(child) > score(scratch) + 0.05


def test_a_foreign_adapter_is_refused_in_one_line(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    make_folder(foreign)
    (foreign / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      weights")
    code, log = finished(start(tmp_path, phase(tmp_path, parent_adapter=foreign)))
    assert code == 3
    assert "foreign holds no adapter of a rehearsal" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(("node", "text"), [(0, "nan"), (1, "CUDA out of memory")])
def test_a_failing_phase_fails_midway_with_a_log_to_analyse(tmp_path: Path, node: int, text: str) -> None:
    failing = Rehearsal(step_seconds=0.0, failure_rate=1.0)
    code, log = finished(start(tmp_path, phase(tmp_path, node=node, rehearsal=failing)))
    assert code == 1
    assert text in log
    assert "SIMULATED" in log.splitlines()[-1]
    rows = read_series([PhaseDirectory(tmp_path).attempt(1).metrics]).rows
    assert 0 < len(rows) < 25


def test_an_adapter_is_scored_on_a_split(tmp_path: Path) -> None:
    finished(start(tmp_path, phase(tmp_path)))
    folder = PhaseDirectory(tmp_path / "evaluation")
    make_folder(folder.attempt(1).path)
    spec = EvaluationSpec(
        search="a",
        node=0,
        step=20,
        seed=5,
        model="builtin:chains",
        task=ChainsTask(),
        split=Split.TEST,
        adapter=checkpoint_path(PhaseDirectory(tmp_path).checkpoints, 20),
        max_response_length=64,
        hardware=Hardware(),
        rehearsal=Rehearsal(),
        result=folder.result,
    )
    write_specification(folder.specification, spec)
    command = TRAINER.plan_evaluation(folder.specification, folder.attempt(1).path).command
    log = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "SIMULATED" in log
    result = json.loads(folder.result.read_text())
    series = read_series([PhaseDirectory(tmp_path).attempt(1).metrics])
    assert result["score"] == pytest.approx(dict(series.points("val_score"))[20], abs=0.05)
    assert set(result["subtask_scores"]) == {"short", "long"}
    assert result["rows"] > 0


def test_the_trainer_of_that_name_is_simulated_and_takes_what_the_table_takes() -> None:
    trainer = make_trainer("rehearsal")
    assert trainer.simulated
    trainer.check(CONFIG)
    assert trainer.train_rows(CONFIG) == CONFIG.rehearsal.train_rows
    assert trainer.problems(CONFIG, CONFIG.configuration) == []
    (problem,) = trainer.problems(CONFIG, Configuration(overrides={"warmup": 3}))
    assert "warmup" in problem


def test_the_attempts_folder_stands_in_the_command_line(tmp_path: Path) -> None:
    for plan in (TRAINER.plan, TRAINER.plan_evaluation):
        assert str(tmp_path / "attempts" / "1") in plan(tmp_path / "config.yaml", tmp_path / "attempts" / "1").command


def test_the_command_starts_without_heavy_imports(tmp_path: Path) -> None:
    code = "import sys, llmzero_hpc.trainers.rehearsal.train; print(*sys.modules)"
    python = TRAINER.plan(tmp_path, tmp_path).command[0]
    loaded = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numpy", "submitit", "transformers", "h5py", "psutil"} & set(loaded)
