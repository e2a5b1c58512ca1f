"""The lean trainer as the controller sees it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar, Final

from llmzero_hpc.errors import ConfigurationError, MissingDependencyError
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.models import resolve_model
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.base import Trainer
from llmzero_hpc.trainers.launch import launch_plan
from llmzero_hpc.trainers.rows import check_rows
from llmzero_hpc.trainers.specification import read_evaluation, read_phase
from llmzero_hpc.trainers.trl import overrides

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.trainers.base import LaunchPlan

_PACKAGES: Final = ("torch", "safetensors", "tokenizers")
_OVERRIDES: Final = ("adam_beta1", "adam_beta2", "adam_epsilon", "epsilon_high", "loss_type", "weight_decay")
"""TRL's keys that mean the same here."""
_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LeanTrainer(Trainer):
    """GRPO of tiny Qwen3-shaped policies on a CPU, in plain torch: the losses are TRL's, the adapters PEFT's."""

    name: ClassVar[str] = "lean"

    def check(self, config: SearchConfig) -> None:
        """See the base class."""
        for package in _PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MissingDependencyError(
                    f"the lean trainer needs {package}, which is not installed", "pip install 'llmzero-hpc[local]'"
                )
        hardware = config.hardware
        if hardware.gpus or hardware.device == "cuda" or hardware.nodes > 1:
            raise ConfigurationError("hardware: the lean trainer takes one CPU", "take `trainer: trl`, or no GPUs")
        folder = resolve_model(config.model)
        if found := self.problems(config, config.configuration):
            raise ConfigurationError("configuration." + found[0])
        from llmzero_hpc.trainers.lean.policy import read_shape, read_weights
        from llmzero_hpc.trainers.lean.vocabulary import Vocabulary

        shape = read_shape(folder)
        read_weights(folder)
        check_rows(config, Vocabulary(folder).prompts, shape.positions)

    def problems(self, config: SearchConfig, configuration: Configuration) -> list[str]:  # noqa: ARG002 - contract
        """See the base class."""
        found = overrides.problems(configuration.overrides, _OVERRIDES)
        names = {name.strip() for name in configuration.target_modules.split(",")}
        if names != {"all-linear"} and not names <= set(_TARGETS):
            found.append(f"target_modules: 'all-linear', or some of {', '.join(_TARGETS)} joined by commas")
        return found

    def train_rows(self, config: SearchConfig) -> int:
        """See the base class."""
        return len(load_task(config.task).rows(Split.TRAIN))

    def plan(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """See the base class."""
        hardware = read_phase(spec_file).hardware
        return launch_plan("llmzero_hpc.trainers.lean.train", spec_file, attempt_directory, hardware)

    def plan_evaluation(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """See the base class."""
        hardware = read_evaluation(spec_file).hardware
        return launch_plan("llmzero_hpc.trainers.lean.evaluate", spec_file, attempt_directory, hardware)
