"""Phases of a model that exists by its sizes alone, and a Python that has VeRL.

VeRL is heavy, so it may live in an environment of its own: LLMZERO_VERL_PYTHON names that Python. Without it, and
without VeRL here, the tests marked `verl` are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from verl_models import QWEN3, write_model

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import ChainsTask, Hardware, Rehearsal
from llmzero_hpc.trainers.base import PhaseSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def verl_python() -> str:
    found = importlib.util.find_spec("verl")
    # This very folder may be found by that name; VeRL has a file.
    is_here = found is not None and found.origin is not None
    python = os.environ.get("LLMZERO_VERL_PYTHON") or (sys.executable if is_here else "")
    if not python:
        pytest.skip("VeRL is not installed, and LLMZERO_VERL_PYTHON names no Python that has it")
    return python


@pytest.fixture(scope="session")
def verl_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = str(tmp_path_factory.mktemp("verl"))
    return {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": folder}


@pytest.fixture(scope="session")
def in_verl(verl_python: str, verl_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a Python command line where VeRL is."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [verl_python, *arguments]
        return subprocess.run(command, env=verl_environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def ask(
    verl_python: str, verl_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Sequence[dict[str, Any]]], list[Any]]]:
    """VeRL's answers to questions (`verl_answers`), from one process for all tests, as it takes long to start."""
    log = tmp_path_factory.mktemp("answers") / "stderr.txt"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [verl_python, str(HERE / "verl_answers.py")],
            env=verl_environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None

        def answers(questions: Sequence[dict[str, Any]]) -> list[Any]:
            found = []
            for question in questions:
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                assert line, log.read_text()[-4000:]
                found.append(json.loads(line))
            return found

        yield answers
        process.stdin.close()


@pytest.fixture(scope="session")
def model_4b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3-4B without its weights, and with another tokenizer."""
    return write_model(tmp_path_factory.mktemp("qwen3-4b"), QWEN3["4B"])


@pytest.fixture
def make_phase(model_4b: Path) -> Callable[..., PhaseSpec]:
    """Makes a phase of Qwen3-4B; fields may be changed."""

    def make(**changes: object) -> PhaseSpec:
        folder = Path("/search/phases/0003")
        spec = PhaseSpec(
            search="music",
            node=3,
            seed=1,
            model=str(model_4b),
            task=ChainsTask(),
            configuration=Configuration(),
            first_step=1,
            total_steps=117,
            validate_every_steps=10,
            validation_max_response_length=8192,
            parent_adapter=None,
            checkpoints=folder / "checkpoints",
            training_state=folder / "training_state",
            hardware=Hardware(gpus=8, nodes=2),
            rehearsal=Rehearsal(),
        )
        return replace(spec, **changes)  # type: ignore[arg-type]

    return make
