"""Where VeRL reads and writes, for one run of a phase or of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llmzero_hpc.store.phase_directory import AttemptDirectory

REWARD_MODULE: Final = "pkg://llmzero_hpc.trainers.verl.reward"
"""What scores responses, as VeRL names modules; it reads `Layout.task`."""
REWARD_FUNCTION: Final = "compute_score"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths, whether there or not. All machines of the job see them.

    Attributes:
        states: where VeRL keeps the states from which it continues (`default_local_dir`); all attempts share it.
        folder: what this run alone reads and writes. A run that was requeued has a folder of its own, since VeRL
            empties its log when it opens it, and an older run may still be writing.
    """

    states: Path
    folder: Path

    @classmethod
    def of_run(cls, states: Path, attempt: AttemptDirectory, restart: int = 0) -> Layout:
        """The layout of one run of an attempt: `attempts/2/verl`, or `verl-1` after the first requeue."""
        return cls(states, attempt.path / (f"verl-{restart}" if restart else "verl"))

    @property
    def train_rows(self) -> Path:
        """Rows to train on, in VeRL's shape."""
        return self.folder / "train.parquet"

    @property
    def validation_rows(self) -> Path:
        """Rows to validate on, or those of the split that is evaluated."""
        return self.folder / "validation.parquet"

    @property
    def task(self) -> Path:
        """The task section of the specification as JSON, for the reward."""
        return self.folder / "task.json"

    @property
    def agent_loops(self) -> Path:
        """VeRL's agent loops: one for training, one for validation, each with its own limit of response tokens."""
        return self.folder / "agent_loops.yaml"

    @property
    def command(self) -> Path:
        """The command by which VeRL was started, a line for each setting, for people."""
        return self.folder / "command.sh"

    @property
    def metrics(self) -> Path:
        """VeRL's own log, `{"step": 3, "data": {...}}` in each line; steps count from 1 in every phase."""
        return self.folder / "metrics.jsonl"

    @property
    def mistake(self) -> Path:
        """What went wrong in a reward or a response, one line: VeRL itself would train on without them."""
        return self.folder / "mistake.txt"

    @property
    def newest_state(self) -> Path:
        """Where VeRL names the newest complete state, a number."""
        return self.states / "latest_checkpointed_iteration.txt"

    def state(self, step: int) -> Path:
        """The state after a step of VeRL's count, which begins with 1 in every phase."""
        return self.states / f"global_step_{step}"
