"""What a login node can say of a profile without a job: Slurm answers, and would take its jobs."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import JobRequest
from llmzero_hpc.cluster.doctor_finding import Finding, Verdict
from llmzero_hpc.cluster.slurm import SlurmCluster
from llmzero_hpc.cluster.slurm_commands import COMMANDS, SlurmCommands
from llmzero_hpc.errors import ClusterError, LLMZeroError
from llmzero_hpc.trainers.base import LaunchPlan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmzero_hpc.cluster.doctor_finding import Patient

QUERY_SECONDS = 30.0
"""How long a command of Slurm may take here."""
JOB_PREFIX = "lz-doctor-"
_LIVE = {"idle", "mix", "alloc", "comp", "resv", "plnd"}
_AT_THE_MOMENT = re.compile(r"not available|nodes are busy")
"""What `--test-only` says, but no real submission, while too few machines are up."""
_ASK = "change it in the profile; the site's documentation says what there is"


def login_findings(patient: Patient) -> Iterator[Finding]:
    """Checks that submit nothing; they end with the first that the others build on."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        yield Finding(
            "commands",
            Verdict.FAILED,
            f"{', '.join(missing)} not found",
            "work on a login node of the cluster, or load the site's module for Slurm",
        )
        return
    commands = SlurmCommands(Counter(), QUERY_SECONDS)
    version = commands.run("sbatch", "--version").output.strip() or "Slurm"
    yield Finding("commands", Verdict.OK, f"{version}: {', '.join(COMMANDS)}")
    try:
        partitions = _partitions(commands)
    except ClusterError as error:
        yield Finding("slurmctld", Verdict.FAILED, error.message, "wait until Slurm answers again, or ask the admins")
        return
    yield Finding("slurmctld", Verdict.OK, f"answers; {len(partitions)} partitions")
    yield _accounting(commands)
    short_of_machines = False
    for finding in _partition_findings(patient, commands, partitions):
        short_of_machines |= finding.verdict is Verdict.WARNING
        yield finding
    yield from _setup(patient)
    yield _submission(patient, short_of_machines=short_of_machines)


def job_request(patient: Patient, name: str, directory: Path, seconds: float | None) -> JobRequest:
    """A job as phases have it with this profile."""
    profile = patient.profile
    cpus = patient.config.hardware.threads if patient.config else 1
    return JobRequest(
        name=name,
        directory=directory,
        plan=LaunchPlan(("true",)),
        attempt=1,
        devices=profile.gpus or cpus,
        gpus=profile.gpus > 0,
        time_limit_seconds=seconds,
        nodes=profile.nodes,
    )


def job_name() -> str:
    """A name that no other job has."""
    return f"{JOB_PREFIX}{secrets.token_hex(4)}-check-1"


def _partitions(commands: SlurmCommands) -> list[dict[str, str]]:
    output = commands.ask("slurmctld", "scontrol", "--oneliner", "show", "partition")
    lines = [line for line in output.splitlines() if line.startswith("PartitionName=")]
    return [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines]


def _accounting(commands: SlurmCommands) -> Finding:
    answer = commands.run("sacct", "--noheader", "--allocations", "--starttime=now")
    if not answer.exit_code:
        return Finding("accounting", Verdict.OK, "sacct answers")
    words = answer.complaint or f"sacct exited with code {answer.exit_code}"
    return Finding(
        "accounting",
        Verdict.WARNING,
        f"{words}: costs are the controller's own figures",
        "nothing, if this cluster keeps no accounts; otherwise ask the admins",
    )


def _partition_findings(
    patient: Patient, commands: SlurmCommands, partitions: list[dict[str, str]]
) -> Iterator[Finding]:
    wanted = patient.profile.partition
    known = {entry["PartitionName"]: entry for entry in partitions}
    names = wanted.split(",") if wanted else [name for name, entry in known.items() if entry.get("Default") == "YES"]
    # sbatch itself refuses unknown ones, and jobs without any
    reasons = {name: _reason(patient, known[name]) for name in names if name in known}
    if not reasons:
        return
    fitting = [name for name, reason in reasons.items() if not reason]
    if not fitting:
        place = f"profile {patient.settings.profile}: "
        yield Finding(
            "partition",
            Verdict.FAILED,
            place + "; ".join(reasons.values()),
            "change the profile: Slurm would take such a job and never start it",
        )
        return
    live = _live_machines(commands, fitting)
    message = f"{', '.join(fitting)}: {live} machines up"
    if live < patient.profile.nodes:
        yield Finding(
            "partition",
            Verdict.WARNING,
            f"{message}, a job needs {patient.profile.nodes}",
            "jobs wait until more are back: `sinfo -R` says why they are down",
        )
    else:
        yield Finding("partition", Verdict.OK, message)


def _reason(patient: Patient, partition: dict[str, str]) -> str:
    """Why no job with this profile would ever start in a partition; empty where it would."""
    profile, name = patient.profile, partition["PartitionName"]
    if (state := partition.get("State", "UP")) != "UP":
        return f"partition: {name} is {state}"
    for key, words in (("TotalNodes", "has"), ("MaxNodes", "lets a job have")):
        limit = partition.get(key, "")
        if limit.isdecimal() and profile.nodes > int(limit):
            return f"nodes: {profile.nodes}, and partition {name} {words} {limit}"
    asked = patient.settings.time_limit_minutes or profile.time_limit_minutes
    longest = minutes_of(partition.get("MaxTime", ""))
    if longest is not None and asked > longest:
        return f"time_limit_minutes: {asked:g}, and partition {name} lets a job run {longest:g}"
    return ""


def minutes_of(text: str) -> float | None:
    """Minutes of Slurm's `days-hours:minutes:seconds`; None for anything else, as UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60


def _live_machines(commands: SlurmCommands, partitions: list[str]) -> int:
    output = commands.run(
        "sinfo", "--noheader", "--Node", f"--partition={','.join(partitions)}", "--format=%N %t"
    ).output
    lines = (line.split() for line in output.splitlines())
    return len({parts[0] for parts in lines if len(parts) == 2 and parts[1] in _LIVE})  # noqa: PLR2004


def _setup(patient: Patient) -> Iterator[Finding]:
    """Whether bash can read the user's own lines, which stand in the script as they are."""
    lines = "\n".join(patient.profile.setup)
    if not lines:
        return
    read = subprocess.run(["bash", "-n"], input=lines, capture_output=True, text=True, check=False)
    if read.returncode:
        words = read.stderr.strip().splitlines()[0].removeprefix("bash: ")
        yield Finding(
            "setup",
            Verdict.FAILED,
            f"profile {patient.settings.profile}: setup: {words}",
            "mend that line: it would break the script of every job",
        )
    else:
        yield Finding("setup", Verdict.OK, "bash can read it")


def _submission(patient: Patient, *, short_of_machines: bool) -> Finding:
    """Partition, account, QOS and sizes, as `sbatch --test-only` judges them."""
    directory = patient.state.absolute() / "doctor"
    name = job_name()
    try:
        cluster = SlurmCluster(directory, patient.settings, patient.profile, query_timeout_seconds=QUERY_SECONDS)
        preview = cluster.preview(job_request(patient, name, directory, None))
    except LLMZeroError as error:
        words = error.message.removeprefix(f"Slurm would refuse {name}: ")
        if short_of_machines and _AT_THE_MOMENT.search(words):
            return Finding("submission", Verdict.WARNING, words, "jobs wait until that is over; `sinfo -R` says why")
        return Finding("submission", Verdict.FAILED, words, error.next_step or _ASK)
    return Finding("submission", Verdict.OK, preview.estimate)
