"""The format of strategy files: every phase with its whole configuration, why it was chosen, what it reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from llmzero_hpc import settings_file
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.mistakes import Mistake, explained
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.hyperparameters import Scalar
from llmzero_hpc.search.node import TransitionKind
from llmzero_hpc.sections import Hardware, Section, TaskConfig

if TYPE_CHECKING:
    from pathlib import Path

STRATEGY_FORMAT: Final = 1
_WRITER = "`llmzero-hpc export FOLDER` writes one"


class PhaseOfStrategy(Section):
    """One phase: the steps of it that the strategy uses."""

    node: Annotated[int, Field(ge=0)]
    """Its number in the search."""
    transition: TransitionKind
    """How it came about."""
    seed: int = 0
    """Training seed."""
    resumes: Annotated[int, Field(ge=1)] | None = None
    """The checkpoint step that it starts from; none from scratch."""
    first_step: Annotated[int, Field(ge=1)]
    """Steps are numbered along the strategy."""
    last_step: Annotated[int, Field(ge=1)]
    """Where the next phase resumes, or the best step."""
    validation_score: float | None = None
    """At `last_step`."""
    gain: float | None = None
    """That minus the one of the phase before."""
    device_hours: Annotated[float, Field(ge=0)] | None = None
    """What the whole phase cost, steps after `last_step` included."""
    author: str = ""
    """Who proposed it."""
    rule: str = ""
    """The playbook's rule."""
    diagnosis: str = ""
    """What was said for it."""
    evidence: tuple[str, ...] = ()
    """What it was concluded from."""
    changes: dict[str, tuple[Scalar | None, Scalar | None]] = {}
    """What differs from the phase before: value before and after."""
    configuration: Configuration
    """All hyperparameters, and further keys of the trainer under `overrides`."""

    @property
    def steps(self) -> int:
        """Steps that the strategy uses."""
        return self.last_step - self.first_step + 1


class StrategyFile(Section):
    """A strategy with its provenance."""

    format: Literal[1]
    """Of this file."""
    search: str
    """The search that found it."""
    method: str = "llmzero"
    """The method of that search."""
    seed: int
    """Of that search."""
    created: str = ""
    """When that search was created, ISO 8601."""
    program_version: str = ""
    """Of the program that created it."""
    trainer: str
    """What trained it."""
    simulated: bool = False
    """Scores are made up by the rehearsal trainer."""
    model: str
    """Base model."""
    task: TaskConfig
    """What it was trained for."""
    train_rows: Annotated[int, Field(ge=1)]
    """Rows of the training split; with them steps are epochs."""
    validate_every_steps: Annotated[int, Field(ge=1)] = 10
    """Steps between two validations."""
    bounds: dict[str, Bounds] = {}
    """Those of the search; the highest response length is the limit of validation."""
    hardware: Hardware = Hardware()
    """What one phase ran on."""
    validation_score: float
    """Best validation score."""
    test_score: float | None = None
    """Of the checkpoint at the last step; none where it was not measured."""
    phases: Annotated[tuple[PhaseOfStrategy, ...], Field(min_length=1)]
    """In order; the first starts from the base model."""

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> StrategyFile:
        done = 0
        for number, phase in enumerate(self.phases, start=1):
            if phase.first_step != done + 1 or phase.last_step < phase.first_step:
                raise Mistake(
                    f"phase {number} makes steps {phase.first_step} to {phase.last_step}, after step {done}",
                    "each phase begins with the step after the last one of the phase before",
                )
            for problem in phase.configuration.problems():
                raise Mistake(f"phase {number}: {problem}", "docs/hyperparameters.md lists what each may be")
            for name in self.phases[0].configuration.fixed_changes(phase.configuration):
                raise Mistake(f"phase {number}: {name} is fixed in a strategy", "give all phases the same")
            done = phase.last_step
        return self

    def configurations(self) -> tuple[Configuration, ...]:
        """The phases to be trained anew: `epochs` is what the strategy uses of each, so that steps follow the rows.

        With as many training rows as here they make exactly as many steps as here.
        """
        return tuple(
            phase.configuration.changed(epochs=phase.steps / max(1, self.train_rows // phase.configuration.batch_size))
            for phase in self.phases
        )

    @property
    def device_hours(self) -> float | None:
        """What its phases cost; None where that is not known."""
        known = [phase.device_hours for phase in self.phases if phase.device_hours is not None]
        return sum(known) if len(known) == len(self.phases) else None


def encoded(strategy: StrategyFile) -> bytes:
    """A strategy as YAML; `read_strategy` returns an equal one."""
    text: str = yaml.safe_dump(strategy.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return text.encode()


def read_strategy(file: Path) -> StrategyFile:
    """The strategy in a file.

    Raises:
        ConfigurationError: it is not there, not YAML, or no strategy; the message says where.
    """
    data = settings_file.parsed(settings_file.read_text(file, _WRITER), str(file), _WRITER)
    try:
        return StrategyFile.model_validate(data)
    except ValidationError as error:
        message, next_step = explained(error.errors(), StrategyFile, "docs/methods.md describes strategy files")
        raise ConfigurationError(f"{file}: {message}", next_step) from None
