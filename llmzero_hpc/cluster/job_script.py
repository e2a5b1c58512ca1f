"""From a request and a cluster profile to the script of a job: what submitit is told, and what runs before Python."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmzero_hpc.cluster.profile import HOSTS
from llmzero_hpc.cluster.templates import rendered
from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.cluster.base import JobRequest
    from llmzero_hpc.cluster.profile import ClusterProfile
    from llmzero_hpc.sections import SlurmClusterConfig

SETUP_TEMPLATE = "job_setup.sh"
"""Of `slurm_templates/`: what the job's script does before it starts Python."""
_NAME = r"lz-(.+)-[^-]+-([^-]+)-([^-]+)"
"""Of a job: search, token, phase (or what is evaluated), attempt."""


@dataclass(frozen=True, slots=True)
class JobScript:
    """A job as submitit takes it: `SlurmExecutor(folder, python=python)`, then `update_parameters(**parameters)`.

    `python` is a shell command; `parameters` are by the executor's names. What the profile leaves out is not there.
    """

    python: str
    parameters: Mapping[str, Any]

    def text(self, folder: Path) -> str:
        """The script that submitit writes for a submission in `folder`, to the letter."""
        from submitit.slurm.slurm import _make_sbatch_string

        command = f"{self.python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
        text: str = _make_sbatch_string(command=command, folder=folder, **self.parameters)
        return text


def job_script(request: JobRequest, profile: ClusterProfile, settings: SlurmClusterConfig) -> JobScript:
    """The script of one job. Pure, but for reading the setup template.

    Raises:
        ConfigurationError: the GPUs cannot be shared out among the machines, the job's folder has a name that Slurm
            would change, or the setup template is wrong.
    """
    _check_folder(request.directory)
    longest = 60 * (settings.time_limit_minutes or profile.time_limit_minutes)
    seconds = longest if request.time_limit_seconds is None else min(longest, request.time_limit_seconds)
    minutes = max(1, math.floor(seconds / 60))
    cpus = profile.cpus_per_node or (None if request.gpus else request.devices)
    parameters = {
        "job_name": request.name,
        "comment": _comment(request),
        "time": minutes,
        "signal_delay_s": min(profile.signal_seconds, minutes * 60 // 2),
        "nodes": request.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": cpus,
        "mem": _memory(profile),
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclusive": profile.exclusive or None,
        "nodelist": profile.nodelist,
        "exclude": _excluded(request, profile),
        "setup": _setup(request, profile, settings),
        "srun_args": _srun_options(profile, cpus),
        "additional_parameters": _further_options(profile, settings),
        **_gpus(request, profile),
    }
    # submitit would pass a --wckey of its own
    return JobScript(
        _python(profile), {key: value for key, value in parameters.items() if value is not None} | {"wckey": None}
    )


def _check_folder(directory: Path) -> None:
    text = str(directory)
    if not text.isprintable() or "%" in text or "\\" in text:
        raise ConfigurationError(
            f"{text!r} cannot be the folder of a Slurm job: Slurm gives % and \\ in it another meaning",
            "use a state folder without them",
        )


def _comment(request: JobRequest) -> str:
    """Who asks, for the cluster's admins."""
    parts = re.fullmatch(_NAME, request.name)
    return "llmzero-hpc: search {}, phase {}, attempt {}".format(*parts.groups()) if parts else "llmzero-hpc"


def _memory(profile: ClusterProfile) -> str | None:
    if profile.memory_gb_per_node is None:
        return None
    return f"{math.ceil(profile.memory_gb_per_node * 1024)}M" if profile.memory_gb_per_node else "0"


def _gpus(request: JobRequest, profile: ClusterProfile) -> dict[str, str]:
    if not request.gpus:
        return {}
    each, rest = divmod(request.devices, request.nodes)
    if rest or not each:
        raise ConfigurationError(
            f"{request.devices} GPUs cannot be shared out among {request.nodes} machines",
            "change nodes or gpus_per_node in the cluster profile",
        )
    typed = f"{profile.gpu_type}:{each}" if profile.gpu_type else str(each)
    return {"gres": f"gpu:{typed}"} if profile.gpu_request == "gres" else {"gpus_per_node": typed}


def _excluded(request: JobRequest, profile: ClusterProfile) -> str | None:
    """Where the profile names the machines, a lost one is not avoided: there may be no other."""
    avoid = request.avoid if not profile.nodelist and re.fullmatch(HOSTS, request.avoid) else ""
    return ",".join(filter(None, (profile.exclude, avoid))) or None


def _srun_options(profile: ClusterProfile, cpus: int | None) -> list[str]:
    # srun does not take the job's CPUs for its task's since Slurm 22.05
    own = ["--kill-on-bad-exit=1"] + ([f"--cpus-per-task={cpus}"] if cpus else [])
    return [*own, *profile.srun_options]


def _further_options(profile: ClusterProfile, settings: SlurmClusterConfig) -> dict[str, Any]:
    own = {"requeue": True, "reservation": profile.reservation, "nice": settings.nice or None}
    options: dict[str, Any] = {**own, **profile.sbatch_options}
    return {key: value for key, value in options.items() if value is not None and value is not False}


def interpreter(profile: ClusterProfile) -> str:
    """Python as a program inside of a job calls it."""
    if profile.virtual_environment:
        return str(profile.virtual_environment / "bin" / "python")
    return "python3" if profile.apptainer_image else sys.executable


def _python(profile: ClusterProfile) -> str:
    image = profile.apptainer_image
    container = ["apptainer", "exec", *profile.apptainer_options, str(image)] if image else []
    return shlex.join([*container, interpreter(profile)])


def _setup(request: JobRequest, profile: ClusterProfile, settings: SlurmClusterConfig) -> list[str]:
    text = rendered(SETUP_TEMPLATE, settings.templates, profile=profile, nodes=request.nodes)
    return [line for line in text.split("\n") if line]
