"""A tiny policy, forty rows of the reader's own data, and phases of a few steps on them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tiny_phases import SMALL

from llmzero_hpc.sections import FilesTask, Hardware, Rehearsal
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.policy import Recipe, build_policy
from llmzero_hpc.tasks.chains.task import ChainArithmetic
from llmzero_hpc.trainers.base import PhaseSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.search.configuration import Configuration

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    # dense, so that a policy which knows nothing yet has something to learn from
    return sum(character in "13579" for character in solution_str) / 8
"""


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    recipe = Recipe(
        derivation_steps=80,
        text_steps=10,
        text_batch=8,
        layers=1,
        width=32,
        feed_forward=64,
        heads=2,
        key_value_heads=1,
    )
    build_policy(folder, recipe=recipe)
    return folder


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> FilesTask:
    folder = tmp_path_factory.mktemp("data")
    rows = ChainArithmetic().rows(Split.TRAIN)
    parts = {"train": rows[:24], "validation": rows[24:34], "test": rows[34:40]}
    for name, part in parts.items():
        lines = [
            json.dumps({"prompt": row.prompt, "answer": row.ground_truth, "data_source": row.data_source})
            for row in part
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "reward.py").write_text(REWARD)
    return FilesTask(
        name="files",
        train=folder / "train.jsonl",
        validation=folder / "validation.jsonl",
        test=folder / "test.jsonl",
        reward=folder / "reward.py",
    )


@pytest.fixture
def make_spec(model_folder: Path, task: FilesTask, tmp_path: Path) -> Callable[..., PhaseSpec]:
    """Makes a phase of four steps, validated after every second, in a folder of its own; fields may be changed."""

    def make(name: str = "phase", configuration: Configuration = SMALL, **changes: object) -> PhaseSpec:
        folder = tmp_path / name
        spec = PhaseSpec(
            search="small",
            node=0,
            seed=1,
            model=str(model_folder),
            task=task,
            configuration=configuration,
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

    return make
