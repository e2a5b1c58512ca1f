"""The contract of a trainer: it plans the command of a phase; the cluster runs it; files carry the results.

A trainer runs in two places. On the login node it is asked for problems and plans, so it imports nothing heavy and
touches no GPU there. Inside the job its command trains. The two meet in files only:

- `phases/0007/config.yaml`: the `PhaseSpec`, written by the controller before the first attempt, read by the command;
- `attempts/1/metrics.jsonl`: canonical metrics, appended by the command through `store.metrics_log`;
- `checkpoints/step_30/`: a PEFT adapter, written under another name and renamed when complete (`trainers.checkpoints`);
- `training_state/`: whatever the trainer needs to continue this very phase, optimizer included; only the newest.

Order inside a step that is validated: train, save the checkpoint, rename it, validate, append the metrics row with
`val_score`. So that row implies the checkpoint. After a kill at any instant the next attempt continues from the newest
complete state in `training_state/`, optimizer and place in the data included, or from the phase's start where there is
none. Scores and their adapters that were there stay as they were; half a state or adapter is never used. What follows:

- `rehearsal`, and `trl` and `lean` on a CPU, end with the adapters of an unbroken run, byte for byte: the random state
  of each step follows from its number. On GPUs that holds as far as their kernels repeat themselves.
- `verl` trains on with other responses: the random state of its rollouts is in no state. Another run of the same
  training, not the same run.

The KL reference is the base model (adapter off) in every phase.

How the command ends says whose fault it was. A last line `error: ...` says what happened, for people and for the error
analyzer. The exit code of a `StorageError` or a `ClusterError` (`errors.INFRASTRUCTURE_EXIT_CODES`) asks for another
attempt at the same phase; any other but 0 is the phase's own failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import Hardware, Rehearsal, TaskConfig
from llmzero_hpc.tasks.base import Split


@dataclass(frozen=True, slots=True)
class PhaseSpec:
    """All that a phase's command needs to know; the content of `phases/0007/config.yaml`.

    Steps are numbered along the strategy: the phase makes `first_step` to `first_step + total_steps - 1`.
    """

    search: str
    node: int
    seed: int
    model: str
    task: TaskConfig
    configuration: Configuration
    first_step: int
    total_steps: int
    validate_every_steps: int
    validation_max_response_length: int
    """The same in all phases of a search, so that their scores compare: the largest limit that it allows."""
    parent_adapter: Path | None
    checkpoints: Path
    training_state: Path
    hardware: Hardware
    rehearsal: Rehearsal

    @property
    def last_step(self) -> int:
        """Its last step along the strategy."""
        return self.first_step + self.total_steps - 1

    def is_validated(self, step: int) -> bool:
        """Whether `step` ends with a checkpoint and a validation."""
        return step == self.last_step or (step - self.first_step + 1) % self.validate_every_steps == 0


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """Scoring one adapter on one split; the content of `evaluations/<split>_<node>_<step>/config.yaml`."""

    search: str
    node: int
    step: int
    seed: int
    model: str
    task: TaskConfig
    split: Split
    adapter: Path
    max_response_length: int
    hardware: Hardware
    rehearsal: Rehearsal
    result: Path
    """Where `EvaluationResult` is written as JSON, by rename."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Scores of an evaluation: the mean over all rows, and over the rows of each `data_source`."""

    score: float
    subtask_scores: dict[str, float]
    rows: int


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """A command for the head process of a job, with variables added to its scrubbed environment.

    With `ray` a Ray cluster of all machines of the job runs while the command does; `RAY_ADDRESS` tells it where.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ray: bool = False


class Trainer(ABC):
    """One way to train. Instances are cheap, hold no state, and may be used from several threads."""

    name: ClassVar[str]
    simulated: ClassVar[bool] = False
    """Its scores are made up; everything that shows them must say so."""

    @abstractmethod
    def check(self, config: SearchConfig) -> None:
        """Whether a search with this configuration can run here: packages, model, data, reward on sample rows.

        Called once when a search is created. May take seconds, shows nothing, needs no GPU.

        Raises:
            ConfigurationError: the user's files or values cannot work.
            MissingDependencyError: an extra of this package is not installed.
        """

    @abstractmethod
    def problems(self, config: SearchConfig, configuration: Configuration) -> list[str]:
        """Why this trainer would refuse a configuration that the table allows; empty when it would not.

        Called for every proposal. Light: no heavy import. Checks `overrides` against the trainer's known keys.
        """

    @abstractmethod
    def train_rows(self, config: SearchConfig) -> int:
        """Rows of the training split; fixes the number of steps of an epoch. Called once and kept in `search.json`."""

    @abstractmethod
    def plan(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """The command that trains the phase described by `spec_file` (a `PhaseSpec` in YAML).

        It exits with 0 when the last step is validated, and otherwise as said above. `attempt_directory` must occur in
        the command line, so that a local cluster can find the process.
        """

    def framework_command(self, spec: PhaseSpec, attempt_directory: Path) -> tuple[str, ...]:
        """What the command of `plan` starts in turn, for people; empty where it trains itself. Writes nothing.

        Raises:
            ConfigurationError: the model or the parent's adapter is not there.
        """
        del spec, attempt_directory
        return ()

    @abstractmethod
    def plan_evaluation(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """The command that scores an adapter as `spec_file` (an `EvaluationSpec`) says."""
