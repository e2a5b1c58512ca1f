"""What the user writes in `search.yaml`, checked on entry; a mistake is a `ConfigurationError` of one line."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from llmzero_hpc import settings_file
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.method_sections import LLMZeroMethod, MethodConfig, TransferMethod
from llmzero_hpc.mistakes import Mistake, closest, explained
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.sections import (
    AgentsConfig,
    Budget,
    ClusterConfig,
    EarlyStop,
    FilesTask,
    Hardware,
    Housekeeping,
    LanguageModelAgents,
    LocalClusterConfig,
    Notify,
    PlaybookAgents,
    Rehearsal,
    Section,
    SlurmClusterConfig,
    TaskConfig,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmzero_hpc.search.methods import Method

NAME_PATTERN = "[a-z0-9][a-z0-9_-]{0,39}"
"""What a search may be called: it names a folder and jobs."""


class SearchConfig(Section):
    """One search, frozen at its creation into `search.json`."""

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """Of the search, of its folder under the state folder, and in the names of its jobs."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Every random choice follows from it."""
    trainer: Literal["verl", "trl", "lean", "rehearsal"] = "trl"
    """`verl`: GRPO by VeRL, on several machines too. `trl`: GRPO by TRL. `lean`: GRPO of tiny policies on one CPU,
    which starts quickly. `rehearsal`: no training, made-up scores."""
    model: str
    """Folder of a Hugging Face model, or `builtin:chains` for the policy that the demo makes, or that of a variant."""
    task: TaskConfig
    """What is trained for: rows and a reward."""
    configuration: Configuration = Configuration()
    """Where the search starts: node 0 trains with this."""
    bounds: dict[str, Bounds] = {}
    """Narrower limits for single hyperparameters."""
    validate_every_steps: Annotated[int, Field(ge=1)] = 10
    """Steps between two validations, each with a checkpoint; the last step is always validated."""
    method: MethodConfig = LLMZeroMethod()
    """What the search is: `llmzero`, or one of the baselines; the name alone, or `kind` with its settings."""
    rules: Rules = Rules()
    """How the tree of `llmzero` grows."""
    budget: Budget = Budget()
    """When the search ends."""
    max_parallel_phases: Annotated[int, Field(ge=1, le=256)] = 1
    """Phases in flight at once; 1 is the search of the paper."""
    max_attempts: Annotated[int, Field(ge=1)] = 5
    """Attempts in a row without a new checkpoint before a phase counts as failed."""
    pause_after_failures: Annotated[int, Field(ge=1)] = 5
    """Failed phases in a row after which the search pauses itself until a person has looked."""
    early_stop: EarlyStop = EarlyStop()
    """When running phases are judged."""
    agents: AgentsConfig = PlaybookAgents()
    """Who proposes, stops and repairs."""
    cluster: ClusterConfig = LocalClusterConfig()
    """Where phases run."""
    hardware: Hardware = Hardware()
    """What one phase runs on."""
    rehearsal: Rehearsal = Rehearsal()
    """How the rehearsal trainer behaves."""
    notify: Notify = Notify()
    """Who is told when the search ends, stalls or needs a decision."""
    housekeeping: Housekeeping = Housekeeping()
    """What is kept on disk."""
    tick_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Floor between two ticks."""
    live_views: bool = True
    """Refresh plots, HDF5 files and the report whenever a phase ends, in a process of their own."""

    @property
    def growth(self) -> Method:
        """How its tree grows."""
        return self.method.growth(self.rules)

    @property
    def judging(self) -> EarlyStop:
        """When its running phases are judged."""
        return self.method.judging(self.early_stop)

    def validation_max_response_length(self, configuration: Configuration) -> int:
        """Limit of validation and test responses, tokens: the largest that the search allows.

        One limit for all phases, so that their scores can be compared; without a bound, the phase's own.
        """
        high = self.bounds.get("max_response_length", Bounds()).high
        return configuration.max_response_length if high is None else int(high)

    def secret_variables(self) -> frozenset[str]:
        """Environment variables whose values are for the controller alone."""
        named = (getattr(self.agents, "api_key_env", None), self.notify.webhook_env)
        return frozenset(name for name in named if name)

    @field_validator("cluster", mode="before")
    @classmethod
    def _local_by_default(cls, value: Any) -> Any:
        return {"kind": "local", **value} if isinstance(value, dict) else value

    @field_validator("configuration", mode="before")
    @classmethod
    def _known_hyperparameters(cls, value: Any) -> Any:
        for key in value if isinstance(value, dict) else ():
            if key not in HYPERPARAMETERS and key != "overrides":
                raise Mistake(
                    f"configuration.{key} is no hyperparameter", closest(key, [*HYPERPARAMETERS, "overrides"])
                )
        overrides = value.get("overrides") if isinstance(value, dict) else None
        for key, wanted in overrides.items() if isinstance(overrides, dict) else ():
            if not isinstance(wanted, bool | int | float | str):
                raise Mistake(f"configuration.overrides.{key}: expected a number, text, true or false")
        return value

    @model_validator(mode="after")
    def _cost_can_be_modelled(self) -> SearchConfig:
        if self.hardware.cost == "modelled" and (
            self.trainer != "lean" or not isinstance(self.cluster, LocalClusterConfig)
        ):
            raise Mistake(
                "hardware.cost: only `trainer: lean` on this machine has a model of it", "remove it, or take `measured`"
            )
        return self

    @model_validator(mode="after")
    def _money_can_be_counted(self) -> SearchConfig:
        agents = self.agents
        if self.budget.api_dollars is not None and isinstance(agents, LanguageModelAgents) and agents.prices is None:
            raise Mistake(
                "budget.api_dollars needs agents.prices", "say what the model's tokens cost, in dollars for a million"
            )
        return self

    @model_validator(mode="after")
    def _values_in_bounds(self) -> SearchConfig:
        for key, own in self.bounds.items():
            if key not in HYPERPARAMETERS:
                raise Mistake(f"bounds.{key} is no hyperparameter", closest(key, list(HYPERPARAMETERS)))
            if HYPERPARAMETERS[key].kind in {bool, str}:
                raise Mistake(f"bounds.{key}: {key} is no number, so it has no bounds", "remove it")
            for side, limit in (("low", own.low), ("high", own.high)):
                if limit is not None and not math.isfinite(limit):
                    raise Mistake(f"bounds.{key}.{side}: {limit} is no limit", "leave it out for none of your own")
            if own.low is not None and own.high is not None and own.low > own.high:
                raise Mistake(f"bounds.{key}: low {own.low:g} is above high {own.high:g}")
        for problem in self.configuration.problems():
            raise Mistake(f"configuration.{problem}", "docs/hyperparameters.md lists what each may be")
        for problem in self.configuration.problems(self.bounds):
            key = problem.partition(":")[0]
            raise Mistake(f"configuration.{problem}", f"the search starts within its bounds: see bounds.{key}")
        return self


_INIT = "`llmzero-hpc init FOLDER` writes one to start from"


def load(path: Path) -> SearchConfig:
    """Read and check a `search.yaml`; relative paths in it are taken from its folder.

    Raises:
        ConfigurationError: the file is not there, not YAML, or wrong somewhere; the message says where.
    """
    config = load_text(settings_file.read_text(path, _INIT), str(path))
    return _with_absolute_paths(config, path.resolve().parent)


def load_text(text: str, source: str) -> SearchConfig:
    """Check the text of a `search.yaml`; `source` names it in messages.

    Raises:
        ConfigurationError: it is not YAML, or wrong somewhere; the message says where.
    """
    return checked_settings(settings_file.parsed(text, source, _INIT), source)


def checked_settings(data: dict[Any, Any], source: str) -> SearchConfig:
    """Check the settings of a search; `source` names where they come from in messages.

    Raises:
        ConfigurationError: something is wrong; the message says where.
    """
    try:
        return SearchConfig.model_validate(data)
    except ValidationError as error:
        message, next_step = explained(error.errors(), SearchConfig)
        raise ConfigurationError(f"{source}: {message}", next_step) from None


def changed_settings(config: SearchConfig, changes: Mapping[str, Any], source: str, folder: Path) -> SearchConfig:
    """A search with other settings: of a section only the keys that are named change, unless it is of another kind.

    Args:
        config: the search.
        changes: keys as in `search.yaml`.
        source: names them in messages.
        folder: where relative paths in them are taken from.

    Raises:
        ConfigurationError: something in it is wrong; the message says where.
    """
    data = {key: getattr(config, key) for key in type(config).model_fields}
    for key, value in changes.items():
        known = _keys(data.get(key))
        same_kind = value.keys() <= known.keys() and value.get("kind") in {None, known.get("kind")} if known else False
        data[key] = {**known, **value} if same_kind else value
    return _with_absolute_paths(checked_settings(data, source), folder)


def _keys(section: Any) -> dict[str, Any]:
    """Of a section; none of what is no section."""
    if isinstance(section, Rules):
        return asdict(section)
    return section.model_dump() if isinstance(section, Section) else {}


def _with_absolute_paths(config: SearchConfig, folder: Path) -> SearchConfig:
    model = config.model if config.model.startswith("builtin:") else str(folder / Path(config.model).expanduser())
    task = config.task
    if isinstance(task, FilesTask):
        paths = {
            key: folder / value.expanduser()
            for key in ("train", "validation", "test", "reward")
            if (value := getattr(task, key)) is not None
        }
        task = task.model_copy(update=paths)
    cluster = config.cluster
    if isinstance(cluster, SlurmClusterConfig):
        own = {"profiles": cluster.profiles, "templates": cluster.templates}
        folders = {key: folder / value.expanduser() for key, value in own.items() if value is not None}
        cluster = cluster.model_copy(update=folders)
    agents = config.agents
    if isinstance(agents, LanguageModelAgents):
        mine = {"prompts": agents.prompts, "api_key_file": agents.api_key_file}
        paths = {key: folder / value.expanduser() for key, value in mine.items() if value is not None}
        agents = agents.model_copy(update=paths)
    if isinstance(agents, LanguageModelAgents) and agents.serve is not None:
        theirs = {"model": agents.serve.model, "python": agents.serve.python}
        paths = {key: folder / value.expanduser() for key, value in theirs.items() if value is not None}
        agents = agents.model_copy(update={"serve": agents.serve.model_copy(update=paths)})
    method = config.method
    if isinstance(method, TransferMethod) and method.strategy is not None:
        method = method.model_copy(update={"strategy": folder / method.strategy.expanduser()})
    parts = {"model": model, "task": task, "cluster": cluster, "agents": agents, "method": method}
    return config.model_copy(update=parts)
