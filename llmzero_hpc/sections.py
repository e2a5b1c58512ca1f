"""The sections of `search.yaml`: what each key may be and what it means (the tables in docs are made from these)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from llmzero_hpc.mistakes import Mistake


class Section(BaseModel):
    """Frozen, and no key is ever ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChainsTask(Section):
    """Two-length arithmetic chains modulo 10: the task of the demo."""

    name: Literal["chains"] = "chains"
    """Chosen by this name."""
    variant: Literal["two-lengths", "near-tie", "trap", "exploration"] = "two-lengths"
    """Which chains, and in which mix; each has a policy of its own, `builtin:chains-<variant>`."""


class FilesTask(Section):
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


class Hardware(Section):
    """What one phase runs on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where phases train; `auto` is `cuda` when `gpus` is above 0."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines of a phase; on Slurm taken from the cluster profile."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of a phase on all its machines together; 0 on a CPU. On Slurm taken from the cluster profile."""
    threads: Annotated[int, Field(ge=1)] = 1
    """CPU threads of a phase on each machine; with 1, training repeats to the bit."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the base model; the adapter is float32. `auto` is `bfloat16` on GPUs and `float32` on a CPU."""
    vllm: bool = False
    """Generate rollouts with vLLM, beside the training; verl does so on GPUs in any case."""
    vllm_memory_utilization: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of GPU memory that vLLM takes; None is 0.4 with trl, and what training leaves, up to 0.7, with verl."""
    gpu_memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of each GPU. With verl, what cannot fit into it is refused; None assumes 40, and refuses nothing."""
    deepspeed_stage: Literal[0, 2, 3] = 0
    """ZeRO stage with several GPUs; 0 trains without DeepSpeed."""
    cost: Literal["measured", "modelled"] = "measured"
    """`modelled`: seconds follow from the tokens of each step by a fixed model, start, validation and test are free,
    and a search repeats to the digit. With `trainer: lean` on this machine only; figures are labelled as modelled."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Responses in one forward and backward pass on each device; None takes a mini-batch at once."""

    @property
    def devices(self) -> int:
        """What a phase is charged for: its GPUs, or its CPU threads without any."""
        return self.gpus or self.threads * self.nodes


class Budget(Section):
    """When the search ends. Each limit is checked before a submission; None means no limit."""

    iterations: Annotated[int, Field(ge=1)] = 16
    """Phases to train; those cancelled before they started are not counted."""
    device_hours: Annotated[float, Field(gt=0)] | None = None
    """GPU-hours, or CPU-hours without a GPU, of all attempts together."""
    strategy_device_hours: Annotated[float, Field(gt=0)] | None = None
    """What one strategy may cost, its phases together: training it anew costs no more. A phase ends at the step that
    uses it up, and nothing resumes from there."""
    includes_test: bool = True
    """The test score is paid from `device_hours` and left out where nothing is left; false measures it in any case."""
    deadline_hours: Annotated[float, Field(gt=0)] | None = None
    """Wall hours since the search was created."""
    api_dollars: Annotated[float, Field(gt=0)] | None = None
    """Money for the agents' language models, at the prices under `agents`."""


class EarlyStop(Section):
    """When running phases are judged (section 3.5)."""

    enabled: bool = True
    """Whether phases are judged at all."""
    interval_seconds: Annotated[float, Field(ge=0)] = 900.0
    """Seconds between two judgements of a phase, of which each needs a validation since the one before; 0 judges every
    validation, in order, so that runs repeat exactly."""
    first_step: Annotated[int, Field(ge=1)] = 10
    """Steps of the phase before the first judgement."""


class PlaybookAgents(Section):
    """Rules over the metrics, without a language model: free, offline, and the same answer every time."""

    kind: Literal["playbook"] = "playbook"
    """`playbook`: rules decide everything (docs/playbook.md)."""


class Prices(Section):
    """Dollars for a million tokens, as the endpoint's owner charges them."""

    input: Annotated[float, Field(ge=0)]
    """Of prompts."""
    output: Annotated[float, Field(ge=0)]
    """Of replies, hidden reasoning included."""
    cached_input: Annotated[float, Field(ge=0)] | None = None
    """Of prompt tokens that the endpoint had seen before; None is as `input`."""
    image: Annotated[float, Field(ge=0)] | None = None
    """Of images, where the endpoint counts their tokens apart; None is as `input`."""


_LIST = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""For lists inside of sections that are chosen by what is in them: these are read from JSON as Python's own lists."""


class Serve(Section):
    """A model that the search serves itself, with vLLM, as a job of its cluster; nothing leaves the cluster."""

    model: Path
    """Folder of a Hugging Face model, on a file system that the job sees."""
    profile: str | None = None
    """Cluster profile of its job: one machine, with the GPUs that the model needs. None is that of the phases."""
    gpu_ids: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_:.-]+$")], ...], _LIST] = ()
    """Without a cluster: GPUs of this machine for it, as `CUDA_VISIBLE_DEVICES` names them. On Slurm the profile's."""
    python: Path | None = None
    """Python in which vLLM is installed, or a script that calls one; None is that of the phases' jobs."""
    max_model_len: Annotated[int, Field(ge=1024)] | None = None
    """Tokens of a prompt and its reply together; None is 32768, or what the model takes if that is less."""
    vllm_options: Annotated[tuple[str, ...], _LIST] = ()
    """Further options of `vllm serve`, for example `--quantization=awq`."""
    share: bool = True
    """Let searches of this state folder that ask for the very same server use one together."""
    start_minutes: Annotated[float, Field(gt=0)] = 60.0
    """How long it may take from the start of its job until it answers; then it is started anew."""
    idle_minutes: Annotated[float, Field(gt=0)] = 60.0
    """After so long without a controller that uses it, it ends by itself."""

    @field_validator("vllm_options")
    @classmethod
    def _plain_options(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not re.fullmatch(r"--?[A-Za-z][^\s=]*(=.*)?", value) or not value.isprintable():
                raise Mistake(
                    f"agents.serve.vllm_options: {value!r} is no option", "write one an entry, its value after `=`"
                )
            option = value.partition("=")[0].replace("_", "-")
            if option in _OPTIONS_OF_ITS_OWN:
                raise Mistake(f"agents.serve.vllm_options: {option} is set by the search itself", "remove it")
        return values


_OPTIONS_OF_ITS_OWN = {"--model", "--host", "--port", "--uds", "--api-key", "--served-model-name", "--max-model-len"}


class LanguageModelAgents(Section):
    """Language models behind an OpenAI-compatible endpoint: a hosted one, or a server of your own."""

    kind: Literal["llm"] = "llm"
    """`llm`: a language model proposes, stops and repairs. May be left out beside `base_url` or `serve`."""
    base_url: str = ""
    """Where the API is, as `https://api.openai.com/v1` or `http://node7:8000/v1`; this or `serve` must be there."""
    serve: Serve | None = None
    """What to serve as the search's own endpoint, instead of `base_url`."""
    model: str = ""
    """Name of the model, as the endpoint knows it; with `serve` the name of the folder unless you choose one."""
    api_key_env: str | None = None
    """Environment variable that holds the key, never the key itself; without it or a file, no key is sent."""
    api_key_file: Path | None = None
    """File that holds the key alone, instead of `api_key_env`: your own, of mode 600; for cron and jobs."""
    timeout_seconds: Annotated[float, Field(gt=0, le=1800)] = 300.0
    """Longest wait for one reply."""
    concurrency: Annotated[int, Field(ge=1, le=16)] = 4
    """Calls at once."""
    max_retries: Annotated[int, Field(ge=0, le=20)] = 4
    """How often a call is repeated after an error that may pass, before the endpoint counts as down."""
    max_output_tokens: Annotated[int, Field(ge=256, le=131_072)] = 8192
    """Longest reply in tokens, hidden reasoning included; one that is cut off there cannot be used."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Sampling temperature; None leaves it to the endpoint."""
    vision: bool = True
    """Send plots, where the model takes images; false is the ablation without visual reasoning."""
    structured: Literal["auto", "json_schema", "plain"] = "auto"
    """`json_schema` has the endpoint enforce the form of replies; `auto` does so unless the endpoint refuses it."""
    fallback: Literal["playbook", "wait"] = "playbook"
    """Who proposes and repairs while the model cannot be asked: the playbook, or nobody; with `serve` rather nobody."""
    proposer: Literal["llm", "playbook"] = "llm"
    """Who proposes the next phase."""
    early_stopper: Literal["llm", "playbook"] = "llm"
    """Who judges running phases; a model that cannot be asked lets them run."""
    error_analyzer: Literal["llm", "playbook"] = "llm"
    """Who repairs failed phases."""
    prompts: Path | None = None
    """Folder with your own versions of files from `prompts/`, used instead of those of the same name."""
    prices: Prices | None = None
    """What tokens cost; None counts no money."""
    max_calls: Annotated[int, Field(ge=1)] | None = None
    """Calls that the search may make; after them it goes on as `fallback` says. None means no limit."""

    @model_validator(mode="before")
    @classmethod
    def _as_it_is_served(cls, value: Any) -> Any:
        served = value.get("serve") if isinstance(value, dict) else None
        folder = served.get("model") if isinstance(served, dict) else None
        return value if not folder else {"model": Path(str(folder)).name, "fallback": "wait", **value}

    @model_validator(mode="after")
    def _one_endpoint(self) -> LanguageModelAgents:
        if self.serve is None and not self.base_url:
            raise Mistake("agents.base_url is missing", "docs/search-yaml.md lists every key with its type")
        if not self.model:
            raise Mistake("agents.model is missing", "docs/search-yaml.md lists every key with its type")
        foreign = [name for name in ("base_url", "api_key_env", "api_key_file") if getattr(self, name)]
        if self.serve is not None and foreign:
            raise Mistake(
                f"agents.{foreign[0]} does not go with agents.serve",
                "remove it: the search's own server has an address and a key of its own",
            )
        if self.api_key_env and self.api_key_file:
            raise Mistake("agents.api_key_file does not go with agents.api_key_env", "keep the one that holds the key")
        return self

    @property
    def key_place(self) -> str | None:
        """Where the key is, for people; None without one."""
        return str(self.api_key_file) if self.api_key_file else self.api_key_env

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Mistake("agents.base_url is no http or https address", "write it as https://api.example.org/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:
            # The settings are kept on disk for everyone who may read the search.
            raise Mistake(
                "agents.base_url holds more than host and path",
                "keep keys out of it: put yours into a variable and that variable's name into agents.api_key_env",
            )
        return value.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _name_of_a_variable(cls, value: str | None) -> str | None:
        # The value is not shown: whoever mistakes this setting may have written the key itself.
        if value is not None and not re.fullmatch("[A-Z_][A-Z0-9_]{0,63}", value):
            raise Mistake(
                "agents.api_key_env is no name of an environment variable (A-Z, 0-9 and _)",
                "put the key into a variable, `export MY_KEY=...`, and its name here: `api_key_env: MY_KEY`",
            )
        return value

    @field_validator("api_key_file", mode="before")
    @classmethod
    def _a_path(cls, value: Any) -> Any:
        # As above; the settings are kept on disk, and a path has a folder.
        if isinstance(value, str) and "/" not in value:
            raise Mistake(
                "agents.api_key_file is no path",
                "put the key into a file and its path here: `~/.config/mine/key`, `./key`",
            )
        return value


def _agents_of_a_kind(value: Any) -> Any:
    """Settings that name no kind are a model's as soon as they say where or which it is."""
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "llm" if {"base_url", "model", "serve"} & value.keys() else "playbook", **value}
    return value


AgentsConfig = Annotated[
    Annotated[PlaybookAgents | LanguageModelAgents, Field(discriminator="kind")], BeforeValidator(_agents_of_a_kind)
]


class LocalClusterConfig(Section):
    """The machine itself, through submitit's local executor."""

    time_limit_grain_seconds: ClassVar[float] = 1.0
    kind: Literal["local"] = "local"
    """`local`: phases are processes on this machine."""
    time_limit_minutes: Annotated[float, Field(gt=0)] = 24 * 60.0
    """Longest run of one attempt; a phase goes on in the next attempt from its newest checkpoint."""
    grace_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long a job may be unknown to the cluster, without a marker, before it counts as vanished."""


class SlurmClusterConfig(Section):
    """A Slurm cluster; each attempt of a phase is one job, submitted through submitit."""

    time_limit_grain_seconds: ClassVar[float] = 60.0
    kind: Literal["slurm"]
    """`slurm`: phases are jobs of a Slurm cluster."""
    profile: str = "default"
    """Which cluster profile jobs are submitted with (docs/cluster-profiles.md)."""
    profiles: Path | None = None
    """YAML file with the profiles; None is `$LLMZERO_PROFILES`, or `~/.config/llmzero-hpc/profiles.yaml`."""
    templates: Path | None = None
    """Folder with your own versions of files from `slurm_templates/`, used instead of those of the same name."""
    time_limit_minutes: Annotated[float, Field(ge=1)] | None = None
    """Longest run of one attempt; None is the profile's. A phase goes on after it from its newest checkpoint."""
    grace_seconds: Annotated[float, Field(ge=0)] = 120.0
    """How long Slurm's word, or its silence, must stand without the job's own marker before it is believed."""
    accounting_seconds: Annotated[float, Field(ge=0)] = 900.0
    """How long the end of a search waits for sacct's figures of its last jobs; after it the controller's own stand."""
    submit_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long sbatch may take. After twice that a submission that Slurm does not know was not accepted."""
    nice: Annotated[int, Field(ge=-2147483645, le=2147483645)] = 0
    """Lowers the priority of jobs (`sbatch --nice`); 0 leaves it alone."""
    exclude_failed_nodes: bool = True
    """The next attempt of a phase avoids the machines on which the last one was lost."""


ClusterConfig = Annotated[LocalClusterConfig | SlurmClusterConfig, Field(discriminator="kind")]


class Notify(Section):
    """Who is told when the search ends, stalls or needs a decision."""

    mail: Annotated[str, Field(pattern=r"^[^@\s;,<>\"'`$()|&]+@[A-Za-z0-9.-]+$")] | None = None
    """Address; `mail` or `sendmail` where the controller runs writes to it, and Slurm when a controller's job ends."""
    webhook_env: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable that holds a URL; a JSON object with `text` is posted there (Slack, Mattermost, Teams)."""


class Housekeeping(Section):
    """What is kept on disk."""

    collect: bool = False
    """Remove, as the search goes on, checkpoints that nothing can resume and that are not part of the best strategy."""
    free_gb: Annotated[float, Field(ge=0)] = 2.0
    """No phase is submitted while the state folder's file system has less free space than this."""


class Rehearsal(Section):
    """How the rehearsal trainer behaves; nothing is trained."""

    step_seconds: Annotated[float, Field(ge=0)] = 0.05
    """How long a made-up step takes."""
    train_rows: Annotated[int, Field(ge=1)] = 512
    """Rows that the training split is said to have."""
    failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of phases that exit with an error."""
