"""Cluster profiles: how a site wants its jobs asked for, in one YAML file that searches share.

Each value ends up at one place of a shell script. What is allowed here cannot leave that place: words of Slurm follow
a pattern, all else is one printable line that the script quotes. Only `setup` is shell, the user's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from llmzero_hpc.mistakes import Mistake
from llmzero_hpc.sections import Section

PAGE = "docs/cluster-profiles.md says what each option takes"
_WORD = r"[A-Za-z0-9][A-Za-z0-9_.:+@/=-]*"
HOSTS = r"[A-Za-z0-9_][A-Za-z0-9_.,\[\]-]*"
"""A list of machines as Slurm writes it."""
_PATTERNS = {
    "account": _WORD,
    "partition": rf"{_WORD}(,{_WORD})*",
    "qos": rf"{_WORD}(,{_WORD})*",
    "reservation": rf"{_WORD}(,{_WORD})*",
    "controller_partition": rf"{_WORD}(,{_WORD})*",
    "controller_qos": rf"{_WORD}(,{_WORD})*",
    "constraint": r"[A-Za-z0-9_(\[!][A-Za-z0-9_.:&|,*()\[\]!=+-]*",
    "gpu_type": r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    "nodelist": HOSTS,
    "exclude": HOSTS,
}
_MODULE = r"[A-Za-z0-9_][A-Za-z0-9_.+@:=%~/-]*"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_PATH_WITH_VARIABLES = r"(/|\$(?=[A-Za-z_]))([^$`'\"\\{}]|\$(?=[A-Za-z_]))*"
_LONG_OPTION = r"[a-z][a-z0-9]*(-[a-z0-9]+)+|[a-z][a-z0-9]+"
_OF_THE_SHELL = {"_", "BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"}
_SECRET = r"(.*_)?(API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)"  # noqa: S105 - it recognises names
_CLOCK = r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?"

OWN_OPTIONS = {
    "account": "account",
    "partition": "partition",
    "qos": "qos",
    "constraint": "constraint",
    "reservation": "reservation",
    "nodes": "nodes",
    "gres": "gpus_per_node and gpu_type",
    "gpus": "gpus_per_node",
    "gpus-per-node": "gpus_per_node",
    "cpus-per-task": "cpus_per_node",
    "mem": "memory_gb_per_node",
    "time": "time_limit_minutes",
    "exclusive": "exclusive",
    "nodelist": "nodelist",
    "exclude": "exclude",
    "signal": "signal_seconds",
    "nice": "cluster.nice in search.yaml",
}
"""Options of sbatch that are set through an option of the profile."""
REFUSED_OPTIONS = {
    **dict.fromkeys(("job-name", "comment", "output", "error", "input", "open-mode"), "jobs are found again by it"),
    **dict.fromkeys(
        ("ntasks", "ntasks-per-node", "ntasks-per-core", "ntasks-per-socket", "ntasks-per-gpu", "tasks-per-node"),
        "there is one task on each machine",
    ),
    **dict.fromkeys(("gpus-per-task", "gpus-per-socket", "cpus-per-gpu"), "GPUs are asked for by machine"),
    **dict.fromkeys(("requeue", "no-requeue"), "jobs requeue themselves at the time limit and when preempted"),
    **dict.fromkeys(("array", "dependency", "wrap", "hold"), "each job is a phase of its own and starts when it can"),
    **dict.fromkeys(
        ("test-only", "wait", "parsable", "quiet", "help", "usage", "version"), "the submission would not be understood"
    ),
    **dict.fromkeys(("clusters", "cluster"), "jobs are looked for on the cluster of this login node"),
}
"""Options of sbatch that nobody may set, and why."""


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
    controller_partition: str | None = None
    """`--partition` of the controller's own job, which needs one CPU and no GPU; none is `partition` and `qos`."""
    controller_qos: str | None = None
    """`--qos` of the controller's own job, beside `controller_partition`."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines of a job."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """GPUs on each machine; 0 asks for none."""
    gpu_type: str | None = None
    """Type of GPU as the site names it, for example `a100`."""
    gpu_request: Literal["gres", "gpus-per-node"] = "gres"
    """Which option asks for GPUs: `--gres=gpu:a100:8` or `--gpus-per-node=a100:8`; sites differ."""
    cpus_per_node: Annotated[int, Field(ge=1)] | None = None
    """`--cpus-per-task`, as there is one task on each machine. Without it, and without GPUs, the search's threads."""
    memory_gb_per_node: Annotated[float, Field(ge=0)] | None = None
    """`--mem` in GB; 0 is all of each machine's."""
    time_limit_minutes: Annotated[float, Field(ge=1)] = 24 * 60.0
    """`--time` in minutes."""
    exclusive: bool = False
    """`--exclusive`."""
    nodelist: str | None = None
    """`--nodelist`: these machines."""
    exclude: str | None = None
    """`--exclude`: never these machines."""
    signal_seconds: Annotated[int, Field(ge=1, le=65535)] = 90
    """How long before the time limit a job is told to save and requeue itself; at most half of the limit."""
    modules: tuple[str, ...] = ()
    """Environment modules to load, in order; a job ends at once when one cannot be loaded."""
    virtual_environment: Path | None = None
    """Python environment to use on the machines of a job; none is the one that the controller runs in."""
    apptainer_image: Path | None = None
    """Apptainer image in which Python runs: its `python3`, or that of `virtual_environment`."""
    apptainer_options: tuple[str, ...] = ()
    """For `apptainer exec`, for example `--nv` and `--bind=/scratch`."""
    setup: tuple[str, ...] = ()
    """Your own shell lines, run on the first machine before the job's command."""
    environment: dict[str, str] = {}
    """Variables for the job, taken literally; `setup` may compute some."""
    sbatch_options: dict[str, str | int | bool] = {}
    """Any other option of sbatch by its long name without dashes; true is an option without a value."""
    srun_options: tuple[str, ...] = ()
    """Options for the srun inside the job, for example `--mpi=none`."""
    scratch: Path | None = None
    """Fast shared folder, for caches of models and kernels; may hold variables: `/scratch/$USER`."""
    node_local: Path | None = None
    """Fast folder on each machine, for temporary files, which are removed with the job; may hold `$VARIABLES`."""

    @property
    def gpus(self) -> int:
        """GPUs of a job on all its machines together."""
        return self.nodes * self.gpus_per_node

    @field_validator("time_limit_minutes", mode="before")
    @classmethod
    def _minutes(cls, value: Any) -> Any:
        clock = re.fullmatch(_CLOCK, value) if isinstance(value, str) else None
        if clock is None:
            return value
        days, *rest = (int(part) if part else 0 for part in clock.groups())
        hours, minutes, _ = rest if clock[1] or clock[4] else (0, *rest[:2])
        raise Mistake(
            f"time_limit_minutes: {value!r} is no number of minutes", f"write {days * 1440 + hours * 60 + minutes}"
        )

    @field_validator(*_PATTERNS)
    @classmethod
    def _word_of_slurm(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not re.fullmatch(_PATTERNS[str(info.field_name)], value):
            raise _refusal(str(info.field_name), value, "is nothing that Slurm takes here")
        return value

    @field_validator("virtual_environment", "apptainer_image")
    @classmethod
    def _path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None:
            _one_line(str(info.field_name), str(value))
        return value

    @field_validator("scratch", "node_local")
    @classmethod
    def _path_with_variables(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return value
        option, text = str(info.field_name), str(value)
        _one_line(option, text)
        if not re.fullmatch(_PATH_WITH_VARIABLES, text):
            raise _refusal(option, text, "is no absolute path", "begin it with / or $VARIABLE; no other $, no quotes")
        return value

    @field_validator("modules", "setup", "srun_options", "apptainer_options")
    @classmethod
    def _lines(cls, values: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        option = str(info.field_name)
        for value in values:
            _one_line(option, value, tabs=option == "setup")
            if option == "modules" and not re.fullmatch(_MODULE, value):
                raise _refusal(option, value, "is no name of a module", "write one module an entry")
            if option.endswith("_options") and not re.fullmatch(r"-[^\s=]+(=.*)?", value):
                raise _refusal(option, value, "is no option", "write one option an entry, its value after `=`")
        return values

    @field_validator("environment", mode="before")
    @classmethod
    def _numbers_are_text(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: str(value) if type(value) is int else value for key, value in values.items()}

    @field_validator("environment")
    @classmethod
    def _variables(cls, values: dict[str, str]) -> dict[str, str]:
        for name, value in values.items():
            if not re.fullmatch(_VARIABLE, name) or name in _OF_THE_SHELL:
                raise _refusal("environment", name, "is no variable that a job may set")
            if re.fullmatch(_SECRET, name.upper()):
                raise Mistake(
                    f"environment.{name}: a secret would be written into every job's script",
                    "export it where the controller starts; jobs inherit it from there",
                )
            _one_line(f"environment.{name}", value)
        return values

    @field_validator("sbatch_options", mode="before")
    @classmethod
    def _plain_values(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            if not isinstance(value, str | int):
                raise Mistake(f"sbatch_options.{name}: expected text, a whole number, true or false", PAGE)
        return values

    @field_validator("sbatch_options")
    @classmethod
    def _further_options(cls, values: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for name, value in values.items():
            place = f"sbatch_options.{name}"
            if not re.fullmatch(_LONG_OPTION, name):
                raise _refusal("sbatch_options", name, "is no long option", "write it like `mail-type`, without --")
            if name in OWN_OPTIONS:
                raise Mistake(f"{place} has a place of its own", f"set {OWN_OPTIONS[name]} instead")
            if name in REFUSED_OPTIONS:
                raise Mistake(f"{place} cannot be set: {REFUSED_OPTIONS[name]}", "remove it")
            _one_line(place, str(value))
            if "\\" in str(value):
                raise _refusal(place, str(value), "has a backslash, which sbatch would drop")
        return values


def _one_line(option: str, value: str, *, tabs: bool = False) -> None:
    if not value.strip():
        raise Mistake(f"{option}: empty", "remove it, or fill it in")
    if not (value.replace("\t", " ") if tabs else value).isprintable():
        raise _refusal(option, value, "is not one line of printable text")


def _refusal(option: str, value: str, what: str, next_step: str = PAGE) -> Mistake:
    shown = repr(value)
    return Mistake(f"{option}: {shown if len(shown) <= 60 else shown[:57] + '...'} {what}", next_step)  # noqa: PLR2004
