"""What the user writes in `search.yaml`, checked on entry; a mistake is a `ConfigurationError` of one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.mistakes import Mistake, closest, explained
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.search.rules import Rules

NAME_PATTERN = "[a-z0-9][a-z0-9_-]{0,39}"
"""What a search may be called: it names a folder and jobs."""


class _Section(BaseModel):
    """Frozen, and no key is ever ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChainsTask(_Section):
    """Two-length arithmetic chains modulo 10: the task of the demo."""

    name: Literal["chains"] = "chains"
    """Chosen by this name."""


class FilesTask(_Section):
    """Your own data: JSONL or parquet rows and a Python file with `compute_score`, as VeRL takes them."""

    name: Literal["files"] = "files"
    """Chosen by this name."""
    train: Path
    """Rows to train on (`.jsonl` or `.parquet`), from the folder of `search.yaml`, as all paths in it."""
    validation: Path
    """Rows whose mean score selects checkpoints and strategies."""
    test: Path | None = None
    """Rows that are scored once, at the end, for the best strategy; none leaves that out."""
    reward: Path
    """Python file with the reward function."""
    reward_function: str = "compute_score"
    """Its name in that file; called as `(data_source, solution_str, ground_truth, extra_info=None)`."""
    max_prompt_length: Annotated[int, Field(ge=1)] = 1024
    """Longest prompt in tokens; longer ones are refused when the search is created."""


TaskConfig = Annotated[ChainsTask | FilesTask, Field(discriminator="name")]


class Hardware(_Section):
    """What one phase runs on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where phases train; `auto` is `cuda` when `gpus` is above 0."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of a phase; 0 on a CPU."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of a phase; with 1, training repeats to the bit."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the base model; the adapter is float32. `auto` is `bfloat16` on GPUs and `float32` on a CPU."""
    vllm: bool = False
    """Generate rollouts with vLLM, colocated on the training GPUs."""
    vllm_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Share of GPU memory that vLLM takes."""
    deepspeed_stage: Literal[0, 2, 3] = 0
    """ZeRO stage with several GPUs; 0 trains without DeepSpeed."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Responses in one forward and backward pass on each device; None takes a mini-batch at once."""

    @property
    def devices(self) -> int:
        """What a phase is charged for: its GPUs, or its CPU threads without any."""
        return self.gpus or self.threads


class Budget(_Section):
    """When the search ends. Each limit is checked before a submission; None means no limit."""

    iterations: Annotated[int, Field(ge=1)] = 16
    """Phases to train; those cancelled before they started are not counted."""
    device_hours: Annotated[float, Field(gt=0)] | None = None
    """GPU-hours, or CPU-hours without a GPU, of all attempts together."""
    deadline_hours: Annotated[float, Field(gt=0)] | None = None
    """Wall hours since the search was created."""


class EarlyStop(_Section):
    """When running phases are judged (section 3.5)."""

    enabled: bool = True
    """Whether phases are judged at all."""
    interval_seconds: Annotated[float, Field(ge=0)] = 900.0
    """Seconds between two judgements of a phase; 0 judges every validation, in order, so that runs repeat exactly."""
    first_step: Annotated[int, Field(ge=1)] = 10
    """Steps of the phase before the first judgement."""


class Agents(_Section):
    """Who proposes, stops and repairs."""

    kind: Literal["playbook"] = "playbook"
    """`playbook`: rules over the metrics, without a language model (docs/playbook.md)."""


class LocalClusterConfig(_Section):
    """The machine itself, through submitit's local executor."""

    kind: Literal["local"] = "local"
    """`local`: phases are processes on this machine."""
    time_limit_minutes: Annotated[float, Field(gt=0)] = 24 * 60.0
    """Longest run of one attempt; a phase goes on in the next attempt from its newest checkpoint."""
    grace_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long a job may be unknown to the cluster, without a marker, before it counts as vanished."""


class Rehearsal(_Section):
    """How the rehearsal trainer behaves; nothing is trained."""

    step_seconds: Annotated[float, Field(ge=0)] = 0.05
    """How long a made-up step takes."""
    train_rows: Annotated[int, Field(ge=1)] = 512
    """Rows that the training split is said to have."""
    failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of phases that exit with an error."""


class SearchConfig(_Section):
    """One search, frozen at its creation into `search.json`."""

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """Of the search, of its folder under the state folder, and in the names of its jobs."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Every random choice follows from it."""
    trainer: Literal["trl", "rehearsal"] = "trl"
    """`trl`: GRPO by TRL. `rehearsal`: nothing is trained, scores are made up."""
    model: str
    """Folder of a Hugging Face model, or `builtin:chains` for the policy that the demo makes."""
    task: TaskConfig
    """What is trained for: rows and a reward."""
    configuration: Configuration = Configuration()
    """Where the search starts: node 0 trains with this."""
    bounds: dict[str, Bounds] = {}
    """Narrower limits for single hyperparameters."""
    validate_every_steps: Annotated[int, Field(ge=1)] = 10
    """Steps between two validations, each with a checkpoint; the last step is always validated."""
    rules: Rules = Rules()
    """How the tree grows."""
    budget: Budget = Budget()
    """When the search ends."""
    max_parallel_phases: Annotated[int, Field(ge=1, le=64)] = 1
    """Phases in flight at once; 1 is the search of the paper."""
    max_attempts: Annotated[int, Field(ge=1)] = 5
    """Attempts in a row without a new checkpoint before a phase counts as failed."""
    pause_after_failures: Annotated[int, Field(ge=1)] = 5
    """Failed phases in a row after which the search pauses itself until a person has looked."""
    early_stop: EarlyStop = EarlyStop()
    """When running phases are judged."""
    agents: Agents = Agents()
    """Who proposes, stops and repairs."""
    cluster: LocalClusterConfig = LocalClusterConfig()
    """Where phases run."""
    hardware: Hardware = Hardware()
    """What one phase runs on."""
    rehearsal: Rehearsal = Rehearsal()
    """How the rehearsal trainer behaves."""
    tick_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Floor between two ticks."""
    live_views: bool = True
    """Refresh plots, HDF5 files and the report whenever a phase ends, in a process of their own."""

    def validation_max_response_length(self, configuration: Configuration) -> int:
        """Limit of validation and test responses, tokens: the largest that the search allows.

        One limit for all phases, so that their scores can be compared; without a bound, the phase's own.
        """
        high = self.bounds.get("max_response_length", Bounds()).high
        return configuration.max_response_length if high is None else int(high)

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


class _Loader(yaml.SafeLoader):
    """YAML without its silent trap: of two equal keys, the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; a key that stands twice is an error."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_INIT = "`llmzero-hpc init FOLDER` writes one to start from"


def load(path: Path) -> SearchConfig:
    """Read and check a `search.yaml`; relative paths in it are taken from its folder.

    Raises:
        ConfigurationError: the file is not there, not YAML, or wrong somewhere; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is not there", _INIT) from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path} is a folder, not a file", _INIT) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None
    config = load_text(text, str(path))
    return _with_absolute_paths(config, path.resolve().parent)


def load_text(text: str, source: str) -> SearchConfig:
    """Check the text of a `search.yaml`; `source` names it in messages.

    Raises:
        ConfigurationError: it is not YAML, or wrong somewhere; the message says where.
    """
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise ConfigurationError(f"{source}{where}: not valid YAML: {problem}") from None
    if data is None:
        raise ConfigurationError(f"{source} is empty", _INIT)
    if not isinstance(data, dict):
        raise ConfigurationError(f"{source} holds no settings: it is no list of `key: value`", _INIT)
    try:
        return SearchConfig.model_validate(data)
    except ValidationError as error:
        message, next_step = explained(error.errors(), SearchConfig)
        raise ConfigurationError(f"{source}: {message}", next_step) from None


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
    return config.model_copy(update={"model": model, "task": task})
