"""The folder of one phase, or of one evaluation, and of its attempts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llmzero_hpc.store.atomic import PRIVATE_FOLDER, make_folder, refusals


@dataclass(frozen=True, slots=True)
class AttemptDirectory:
    """What one submission leaves: `attempts/1/`.

    A submission that the cluster requeues runs several times; its runs are numbered by its requeues, from 0.
    """

    path: Path

    @property
    def metrics(self) -> Path:
        """Rows appended by the trainer."""
        return self.path / "metrics.jsonl"

    @property
    def trainer_log(self) -> Path:
        """What the trainer printed."""
        return self.path / "trainer.log"

    @property
    def submission(self) -> Path:
        """Folder of the cluster's files: script, pickles, logs of the launcher."""
        return self.path / "submission"

    def marker(self, restart: int = 0) -> Path:
        """The job's own word on the end of a run, written last: `marker.json`, `marker-1.json`."""
        return self.path / _of_run("marker", restart, ".json")

    def marked_runs(self) -> list[int]:
        """Runs that left a marker, ascending; none where there is no folder.

        Raises:
            StorageError: the folder cannot be read.
        """
        return self._runs("marker", ".json")

    def claim(self, restart: int = 0) -> Path:
        """The name of the one process that makes a run: `claim`, `claim-1`."""
        return self.path / _of_run("claim", restart)

    def claimed_runs(self) -> list[int]:
        """Runs that somebody began, ascending; none where there is no folder.

        Raises:
            StorageError: the folder cannot be read.
        """
        return self._runs("claim")

    def head(self, restart: int = 0) -> Path:
        """What the head of a run on several machines tells the others: `head.json`, `head-1.json`."""
        return self.path / _of_run("head", restart, ".json")

    def present(self, restart: int, rank: int) -> Path:
        """There while another process of such a run is: `rank-3`, `rank-3-1`."""
        return self.path / _of_run(f"rank-{rank}", restart)

    def ray_token(self, restart: int = 0) -> Path:
        """What the machines of a run prove to each other's Ray: private, there while the run goes on."""
        return self.path / _of_run("ray_token", restart)

    def ray_log(self, rank: int) -> Path:
        """What Ray printed on one machine."""
        return self.path / f"ray-{rank}.log"

    def _runs(self, name: str, suffix: str = "") -> list[int]:
        form = re.compile(rf"{name}(?:-([1-9][0-9]*))?{re.escape(suffix)}")
        with refusals("reading", self.path):
            try:
                found = [form.fullmatch(entry.name) for entry in self.path.iterdir()]
            except FileNotFoundError:
                return []
        return sorted(int(match[1] or 0) for match in found if match)

    def create(self) -> None:
        """Make the folder and that of the submission; being there already is fine.

        Raises:
            StorageError: the file system refused.
        """
        make_folder(self.submission)


def _of_run(name: str, restart: int, suffix: str = "") -> str:
    return f"{name}-{restart}{suffix}" if restart else f"{name}{suffix}"


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
