"""The contract's side of the rehearsal: it plans commands, and accepts whatever the table accepts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from llmzero_hpc.trainers.base import LaunchPlan, Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.configuration import Configuration


class RehearsalTrainer(Trainer):
    """Makes phases up, in seconds, on one CPU: to rehearse a search, and to test and measure this program."""

    name: ClassVar[str] = "rehearsal"
    simulated: ClassVar[bool] = True

    def check(self, config: SearchConfig) -> None:
        """Nothing is needed: neither the model nor the task's files are opened."""

    def problems(self, config: SearchConfig, configuration: Configuration) -> list[str]:  # noqa: ARG002 - contract
        """It has no keys beyond the table."""
        return [
            f"overrides.{key}: the rehearsal trainer has no further keys" for key in sorted(configuration.overrides)
        ]

    def train_rows(self, config: SearchConfig) -> int:
        """As `rehearsal.train_rows` says."""
        return config.rehearsal.train_rows

    def plan(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """The command that makes a phase up."""
        return _plan("train", spec_file, attempt_directory)

    def plan_evaluation(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """The command that makes a score up."""
        return _plan("evaluate", spec_file, attempt_directory)


def _plan(module: str, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
    python = (sys.executable, "-m", f"{__package__}.{module}")
    return LaunchPlan((*python, str(spec_file.resolve()), str(attempt_directory.resolve())))
