"""Cluster profiles: how a site wants its jobs asked for, in one YAML file that searches share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmzero_hpc.sections import Section


class ClusterProfile(Section):
    """How jobs are asked for on one cluster. Every option is optional; one left out is not passed to sbatch."""

    account: str | None = None
    """`--account`."""
    partition: str | None = None
    """`--partition`; several separated by commas."""
    qos: str | None = None
    """`--qos`."""
    constraint: str | None = None
    """`--constraint`, for example `a100&80g`."""
    reservation: str | None = None
    """`--reservation`."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines of a job."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """GPUs on each machine; 0 asks for none."""
    gpu_type: str | None = None
    """Type of GPU as the site names it, for example `a100`."""
    gpu_request: Literal["gres", "gpus-per-node"] = "gres"
    """Which option asks for GPUs: `--gres=gpu:a100:8` or `--gpus-per-node=a100:8`; sites differ."""
    cpus_per_node: Annotated[int, Field(ge=1)] | None = None
    """`--cpus-per-task`, as there is one task on each machine."""
    memory_gb_per_node: Annotated[float, Field(gt=0)] | None = None
    """`--mem` in GB."""
    time_limit_minutes: Annotated[float, Field(ge=1)] = 24 * 60.0
    """`--time` in minutes."""
    exclusive: bool = False
    """`--exclusive`."""
    nodelist: str | None = None
    """`--nodelist`: only these machines."""
    exclude: str | None = None
    """`--exclude`: never these machines."""
    signal_seconds: Annotated[int, Field(ge=1, le=65535)] = 90
    """How long before the time limit a job is told to save and requeue itself."""
    modules: tuple[str, ...] = ()
    """Environment modules to load, in order."""
    virtual_environment: Path | None = None
    """Python environment to use on the machines of a job; None is the one that the controller runs in."""
    apptainer_image: Path | None = None
    """Apptainer image in which Python runs instead."""
    apptainer_options: tuple[str, ...] = ()
    """For `apptainer exec`, for example `--nv` and `--bind=/scratch`."""
    setup: tuple[str, ...] = ()
    """Your own shell lines, run on the first machine before the job's command."""
    environment: dict[str, str] = {}
    """Variables for the job."""
    sbatch_options: dict[str, str | int | bool] = {}
    """Any other option of sbatch by its long name without dashes; true is an option without a value."""
    srun_options: tuple[str, ...] = ()
    """Options for the srun inside the job, for example `--mpi=none`."""
    scratch: Path | None = None
    """Fast shared folder, for caches of models and kernels."""
    node_local: Path | None = None
    """Fast folder on each machine, for temporary files; it may not survive the job."""

    @property
    def gpus(self) -> int:
        """GPUs of a job on all its machines together."""
        return self.nodes * self.gpus_per_node
