"""Small configurations, tasks and phases, actions in a forked process, and what phases have left on disk."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import FilesTask, Hardware, Rehearsal
from llmzero_hpc.store.metrics_log import read_series
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.trainers.base import PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path, complete_checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

SMALL = Configuration(
    max_response_length=6,
    rollouts=4,
    learning_rate=1e-2,
    kl_coefficient=0.0,
    batch_size=4,
    mini_batches=2,
    epochs=1.0,
    advantage_normalization=True,
    lora_rank=4,
    lora_alpha=8,
)

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    # dense, so that a policy which knows nothing yet has something to learn from
    return sum(character in "13579" for character in solution_str) / 8
"""
CLOCKED = {"step_seconds", "tokens_per_second"}


def write_files_task(
    folder: Path, parts: Mapping[str, Sequence[object]], reward: str = REWARD, **more: int
) -> FilesTask:
    """A task of one's own in a folder that exists, with the rows of each of its three splits."""
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(reward)
    files = {name: folder / f"{name}.jsonl" for name in ("train", "validation", "test")}
    return FilesTask.model_validate({"name": "files", **files, "reward": folder / "reward.py", **more})


def phase_spec(folder: Path, model: Path, task: FilesTask, /, **changes: object) -> PhaseSpec:
    """A phase of four steps on a CPU, validated after every second; fields may be changed."""
    spec = PhaseSpec(
        search="small",
        node=0,
        seed=1,
        model=str(model),
        task=task,
        configuration=SMALL,
        first_step=1,
        total_steps=4,
        validate_every_steps=2,
        validation_max_response_length=8,
        parent_adapter=None,
        checkpoints=folder / "checkpoints",
        training_state=folder / "training_state",
        hardware=Hardware(device="cpu"),
        rehearsal=Rehearsal(),
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def attempt_of(spec: PhaseSpec, number: int) -> AttemptDirectory:
    attempt = AttemptDirectory(spec.checkpoints.parent / "attempts" / str(number))
    attempt.create()
    return attempt


def adapters(spec: PhaseSpec) -> dict[int, bytes]:
    """The weights of all complete checkpoints."""
    return {
        step: (checkpoint_path(spec.checkpoints, step) / "adapter_model.safetensors").read_bytes()
        for step in complete_checkpoints(spec.checkpoints)
    }


def metrics(spec: PhaseSpec, attempts: int = 1) -> dict[int, dict[str, float]]:
    """Canonical metrics by step as readers see them, without those that a clock has a part in."""
    paths = [attempt_of(spec, number).metrics for number in range(1, attempts + 1)]
    return {
        row.step: {name: value for name, value in row.values.items() if name not in CLOCKED}
        for row in read_series([path for path in paths if path.is_file()]).rows
    }


def exit_status(action: Callable[[], int]) -> int:
    """Runs an action in a fork and makes what it returns the exit status; negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
