"""The folder of one phase, or of one evaluation, and of its attempts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmzero_hpc.store.atomic import PRIVATE_FOLDER, make_folder, refusals


@dataclass(frozen=True, slots=True)
class AttemptDirectory:
    """What one submission leaves: `attempts/1/`."""

    path: Path

    @property
    def metrics(self) -> Path:
        """Rows appended by the trainer."""
        return self.path / "metrics.jsonl"

    @property
    def marker(self) -> Path:
        """The job's own word on its end, written last."""
        return self.path / "marker.json"

    @property
    def trainer_log(self) -> Path:
        """What the trainer printed."""
        return self.path / "trainer.log"

    @property
    def submission(self) -> Path:
        """Folder of the cluster's files: script, pickles, logs of the launcher."""
        return self.path / "submission"

    def create(self) -> None:
        """Make the folder and that of the submission; being there already is fine.

        Raises:
            StorageError: the file system refused.
        """
        make_folder(self.submission)


@dataclass(frozen=True, slots=True)
class PhaseDirectory:
    """Everything of one phase: `phases/0007/`, or `evaluations/test_0007_120/`. Paths, whether there or not."""

    path: Path

    @property
    def specification(self) -> Path:
        """What the trainer's command is told, as launched."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Adapters, `step_30/` each."""
        return self.path / "checkpoints"

    @property
    def training_state(self) -> Path:
        """What the trainer needs to continue this very phase."""
        return self.path / "training_state"

    @property
    def result(self) -> Path:
        """Scores of an evaluation."""
        return self.path / "result.json"

    @property
    def metrics_h5(self) -> Path:
        """The metrics of all attempts, for analysis."""
        return self.path / "metrics.h5"

    @property
    def plots(self) -> Path:
        """Pictures for people."""
        return self.path / "plots"

    @property
    def agents(self) -> Path:
        """Each agent call: prompt, reply, usage. Private: 0700, files in it 0600."""
        return self.path / "agents"

    def create(self) -> None:
        """Make the folder, with a private one for the agents; being there already is fine.

        Raises:
            StorageError: the file system refused.
        """
        make_folder(self.path)
        make_folder(self.agents, PRIVATE_FOLDER)

    def attempt(self, number: int) -> AttemptDirectory:
        """The folder of an attempt (numbered from 1), there or not."""
        return AttemptDirectory(self.path / "attempts" / str(number))

    def attempts(self) -> list[AttemptDirectory]:
        """The attempts that have a folder, in order.

        Raises:
            StorageError: the folder cannot be read.
        """
        folder = self.path / "attempts"
        with refusals("reading", folder):
            try:
                numbers = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())
            except FileNotFoundError:
                return []
        return [self.attempt(number) for number in numbers]
