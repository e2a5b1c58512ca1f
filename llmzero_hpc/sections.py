"""The sections of `search.yaml`: what each key may be and what it means (the tables in docs are made from these)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Frozen, and no key is ever ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChainsTask(Section):
    """Two-length arithmetic chains modulo 10: the task of the demo."""

    name: Literal["chains"] = "chains"
    """Chosen by this name."""


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
        return self.gpus or self.threads * self.nodes


class Budget(Section):
    """When the search ends. Each limit is checked before a submission; None means no limit."""

    iterations: Annotated[int, Field(ge=1)] = 16
    """Phases to train; those cancelled before they started are not counted."""
    device_hours: Annotated[float, Field(gt=0)] | None = None
    """GPU-hours, or CPU-hours without a GPU, of all attempts together."""
    deadline_hours: Annotated[float, Field(gt=0)] | None = None
    """Wall hours since the search was created."""
    api_dollars: Annotated[float, Field(gt=0)] | None = None
    """Money for the agents' language models, at the prices under `agents`."""


class EarlyStop(Section):
    """When running phases are judged (section 3.5)."""

    enabled: bool = True
    """Whether phases are judged at all."""
    interval_seconds: Annotated[float, Field(ge=0)] = 900.0
    """Seconds between two judgements of a phase; 0 judges every validation, in order, so that runs repeat exactly."""
    first_step: Annotated[int, Field(ge=1)] = 10
    """Steps of the phase before the first judgement."""


class Agents(Section):
    """Who proposes, stops and repairs."""

    kind: Literal["playbook"] = "playbook"
    """`playbook`: rules over the metrics, without a language model (docs/playbook.md)."""


class LocalClusterConfig(Section):
    """The machine itself, through submitit's local executor."""

    kind: Literal["local"] = "local"
    """`local`: phases are processes on this machine."""
    time_limit_minutes: Annotated[float, Field(gt=0)] = 24 * 60.0
    """Longest run of one attempt; a phase goes on in the next attempt from its newest checkpoint."""
    grace_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long a job may be unknown to the cluster, without a marker, before it counts as vanished."""


class SlurmClusterConfig(Section):
    """A Slurm cluster; each attempt of a phase is one job, submitted through submitit."""

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
    """Address; the mail is sent by Slurm's own mail service, or by `mail` where there is no Slurm."""
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
