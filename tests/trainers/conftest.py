"""A tiny policy, forty rows of the reader's own data, and phases of a few steps on them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tiny_phases import SMALL, phase_spec, write_files_task

from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.policy import Recipe, build_policy
from llmzero_hpc.tasks.chains.task import ChainArithmetic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.sections import FilesTask
    from llmzero_hpc.trainers.base import PhaseSpec

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
    plain = {
        name: [{"prompt": row.prompt, "answer": row.ground_truth, "data_source": row.data_source} for row in part]
        for name, part in parts.items()
    }
    return write_files_task(folder, plain)


@pytest.fixture
def make_spec(model_folder: Path, task: FilesTask, tmp_path: Path) -> Callable[..., PhaseSpec]:
    """Makes a phase of four steps, validated after every second, in a folder of its own; fields may be changed."""

    def make(name: str = "phase", configuration: Configuration = SMALL, **changes: object) -> PhaseSpec:
        return phase_spec(tmp_path / name, model_folder, task, configuration=configuration, **changes)

    return make
