"""The doctor's small job: what the machines of a job see, compared with what the profile and this machine say."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from llmzero_hpc import __version__
from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.cluster.doctor_finding import Finding, Verdict
from llmzero_hpc.cluster.doctor_login import JOB_PREFIX, QUERY_SECONDS, job_name, job_request
from llmzero_hpc.cluster.doctor_probe import WORD, MachineReport, Probe
from llmzero_hpc.cluster.job_environment import scrubbed
from llmzero_hpc.cluster.job_script import JobScript, job_script
from llmzero_hpc.cluster.slurm import SlurmCluster
from llmzero_hpc.cluster.slurm_commands import SlurmCommands, one_line
from llmzero_hpc.cluster.slurm_refusals import refusal
from llmzero_hpc.errors import ClusterError, LLMZeroError
from llmzero_hpc.search.node import Job
from llmzero_hpc.store.atomic import PRIVATE_FOLDER, make_folder, read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llmzero_hpc.cluster.base import JobObservation
    from llmzero_hpc.cluster.doctor_finding import Patient

_JOB_SECONDS = 600.0
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.5, 10.0
_LATE_SECONDS = 30.0
"""How long a network file system may hide what a job wrote, and Slurm a job that it has accepted."""
_LITTLE_GB = 1.0
_DEADLINE_HOURS = 2
_KEPT_SECONDS = 86400.0
"""How long the folder of a job that failed is kept, for its logs."""
_HOPELESS = {
    "AccountNotAllowed",
    "AssocMaxNodePerJobLimit",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "JobHeldAdmin",
    "PartitionInactive",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSNotAllowed",
}
"""Reasons to wait that time does not mend."""
_TELLING = re.compile(r"Error\b|error:|llmzero-hpc:|not found|parameter null or not set|[Nn]o such file")
_ECHO = re.compile(r"srun: (?:error: \S+: tasks? |Terminating|launch/)")
"""How srun repeats that a task has failed, after the task itself has said why."""
_ADVICE = (
    ("No module named", "install 'llmzero-hpc[slurm]' into the Python environment or image of the profile"),
    ("apptainer|singularity", "check apptainer_image and apptainer_options in the profile"),
    ("module", "check modules in the profile: `module avail` on a machine of the partition lists them"),
    ("parameter null or not set", "check scratch and node_local in the profile: a variable in them is not set in jobs"),
    (r"[Nn]o such file|not found|execve", "check virtual_environment in the profile, and that jobs see that folder"),
)
_SEEN_THERE = "the machines of a job must see it, too: put it on a shared file system"


def job_findings(patient: Patient, wait_seconds: float, tell: Callable[[str], None]) -> Iterator[Finding]:
    """Submit the job, wait for it, and judge what it saw; it is cancelled whenever this ends before the job does."""
    name = job_name()
    place = patient.state.absolute() / f".{name}"
    commands = SlurmCommands(Counter(), QUERY_SECONDS)
    healthy = False
    try:
        try:
            job, word = _submitted(patient, name, place)
        except LLMZeroError as error:
            yield Finding("job", Verdict.FAILED, error.message, error.next_step)
            return
        outcome = _reports(patient, job, place, wait_seconds, tell)
        findings = [outcome] if isinstance(outcome, Finding) else list(judged(patient, outcome, word))
        healthy = all(finding.verdict is not Verdict.FAILED for finding in findings)
        yield from findings
    finally:
        # By name: whether the job has an id may not be known yet.
        commands.run("scancel", "--quiet", f"--name={name}")
        if healthy:
            shutil.rmtree(place, ignore_errors=True)


def _submitted(patient: Patient, name: str, place: Path) -> tuple[Job, str]:
    from submitit.core.utils import FailedJobError
    from submitit.slurm.slurm import SlurmExecutor

    _sweep(patient.state)
    make_folder(place, PRIVATE_FOLDER)
    word = os.urandom(8).hex()
    write_bytes(place / WORD, word.encode())
    script = job_script(job_request(patient, name, place, _JOB_SECONDS), patient.profile, patient.settings)
    foreign = os.environ.keys() - scrubbed(os.environ)

    class Executor(SlurmExecutor):  # type: ignore[misc]
        """Calls sbatch without the traces of a job that surrounds this program."""

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            command: list[str] = super()._make_submission_command(submission_file_path)
            limit = ["timeout", f"{patient.settings.submit_timeout_seconds:g}"]
            return ["env", *(f"--unset={key}" for key in sorted(foreign)), *limit, *command]

    executor = Executor(place, python=script.python)
    executor.update_parameters(**_short_lived(script).parameters)
    config = patient.config.model_dump_json() if patient.config else ""
    try:
        submitted = executor.submit(Probe(str(place), patient.profile.nodes, config))
    except FailedJobError as error:
        raise ClusterError(refusal(patient.settings.profile, patient.profile, one_line(str(error)))) from error
    return Job(submitted.job_id, name, time.time()), word


def _sweep(state: Path) -> None:
    """Remove the logs of jobs that failed long ago."""
    for folder in state.glob(f".{JOB_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(folder)


def _short_lived(script: JobScript) -> JobScript:
    """Slurm forgets the job if it has not run soon, whatever becomes of this program."""
    options = {"deadline": f"now+{_DEADLINE_HOURS}hours", **script.parameters["additional_parameters"]}
    return replace(script, parameters={**script.parameters, "additional_parameters": options})


def _reports(
    patient: Patient, job: Job, place: Path, wait_seconds: float, tell: Callable[[str], None]
) -> list[MachineReport] | Finding:
    """What each machine wrote, or why there is nothing."""
    cluster = SlurmCluster(place, patient.settings, patient.profile, query_timeout_seconds=QUERY_SECONDS)
    submitted_at = time.monotonic()
    gone_at: float | None = None
    pause = _FIRST_POLL_SECONDS
    while True:
        seen = _observation(cluster, job)
        reports = _read(place, patient.profile.nodes)
        if len(reports) == patient.profile.nodes and not (seen and seen.state.is_live):
            return reports
        now = time.monotonic()
        if seen is not None and seen.state is JobState.PENDING:
            if seen.reason in _HOPELESS or now - submitted_at > wait_seconds:
                return _never_started(patient, seen, now - submitted_at)
            tell(f"Job {job.job_id} waits in the queue ({seen.reason})")
        elif seen is not None and seen.state is JobState.RUNNING:
            tell(f"Job {job.job_id} runs on {seen.hosts}")
        else:
            gone_at = gone_at or now
            if (seen is not None and seen.state is not JobState.COMPLETED) or now - gone_at > _LATE_SECONDS:
                return _died(seen, job, place)
        time.sleep(pause)
        pause = min(_LONGEST_POLL_SECONDS, 1.2 * pause)


def _observation(cluster: SlurmCluster, job: Job) -> JobObservation | None:
    with suppress(ClusterError):
        return cluster.observe([job]).get(job.name)
    return None


def _read(place: Path, nodes: int) -> list[MachineReport]:
    contents = [read_bytes(place / f"machine-{rank}.json") for rank in range(nodes)]
    reports = [json.loads(content) for content in contents if content is not None]
    names = {field.name for field in fields(MachineReport)}
    return [MachineReport(**{key: report[key] for key in names & report.keys()}) for report in reports]


def _never_started(patient: Patient, seen: JobObservation, seconds: float) -> Finding:
    if seen.reason in _HOPELESS:
        message = f"profile {patient.settings.profile}: the job would never start: Slurm says: {seen.reason}"
        return Finding("job", Verdict.FAILED, message, "change the profile, or ask the admins what that means here")
    return Finding(
        "job",
        Verdict.WARNING,
        f"it did not start within {seconds / 60:.0f} minutes ({seen.reason}) and is cancelled",
        "try again when the queue is shorter, or with a longer --wait; no machine was looked at",
    )


def _died(seen: JobObservation | None, job: Job, place: Path) -> Finding:
    state = f"{seen.state.value}: {seen.reason}" if seen else "Slurm does not know it any more"
    logs = sorted(place.glob(f"{job.job_id}_*_log.err")) + sorted(place.glob(f"{job.job_id}_*_log.out"))
    if not logs:
        return Finding(
            "job",
            Verdict.FAILED,
            f"job {job.job_id} left nothing in {place} ({state})",
            "name a folder with --state that the machines of a job can write to",
        )
    lines = [line for log in logs for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    telling = [line.strip() for line in lines if _TELLING.search(line) and not _ECHO.match(line)]
    said = telling[-1] if telling else next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, said)), f"{place} holds its logs")
    return Finding("job", Verdict.FAILED, f"job {job.job_id} failed ({state}): {said}", advice)


def judged(patient: Patient, reports: Sequence[MachineReport], word: str) -> Iterator[Finding]:
    """The findings from what the machines of a job saw."""
    hosts = ", ".join(report.host for report in reports)
    if all(report.word == word for report in reports):
        yield Finding("shared folder", Verdict.OK, f"what is written here is read on {hosts}, and theirs here")
    else:
        yield Finding(
            "shared folder",
            Verdict.FAILED,
            f"{hosts} read something else than was written here",
            "name a folder on a shared file system with --state",
        )
    yield _python(reports)
    yield _search(patient, reports)
    if patient.profile.gpus_per_node:
        yield _gpus(patient, reports)
    yield _temporary_folder(reports)
    if len(reports) > 1:
        problem = next((f"{report.host}: {report.network_problem}" for report in reports if report.network_problem), "")
        if problem:
            yield Finding(
                "network", Verdict.FAILED, problem, "ask the admins which network joins the machines of a job"
            )
        else:
            yield Finding("network", Verdict.OK, "the first machine hears from the others")


def _python(reports: Sequence[MachineReport]) -> Finding:
    other = next((report for report in reports if report.version != __version__), None)
    if other is not None:
        return Finding(
            "python",
            Verdict.FAILED,
            f"{other.host} has llmzero-hpc {other.version}, this machine {__version__}",
            "install the same version in the Python environment or image of the profile",
        )
    return Finding("python", Verdict.OK, f"{reports[0].python}, llmzero-hpc {__version__}")


def _search(patient: Patient, reports: Sequence[MachineReport]) -> Finding:
    if patient.config is None:
        return Finding("search", Verdict.SKIPPED, "name a search.yaml to check packages, model and data there")
    for report in reports:
        message, next_step = report.search_problem
        if message:
            return Finding("search", Verdict.FAILED, f"on {report.host}: {message}", next_step or _SEEN_THERE)
    return Finding("search", Verdict.OK, "the trainer finds its packages, model, data and reward there")


def _gpus(patient: Patient, reports: Sequence[MachineReport]) -> Finding:
    wanted = patient.profile.gpus_per_node
    for report in reports:
        if report.gpus != wanted:
            return Finding(
                "gpus",
                Verdict.FAILED,
                f"{report.host} shows {report.gpus} GPUs to the job, the profile asks for {wanted}",
                "try the other gpu_request, and ask the admins how GPUs are asked for here",
            )
        if report.driver_problem:
            return Finding(
                "gpus",
                Verdict.FAILED,
                f"{report.host}: {report.driver_problem}",
                "tell the admins; `exclude` avoids that machine",
            )
        if report.cuda_devices is not None and report.cuda_devices != wanted:
            return Finding(
                "gpus",
                Verdict.FAILED,
                f"torch sees {report.cuda_devices} of {wanted} GPUs on {report.host}",
                "install a torch for this driver's CUDA; with Apptainer, add --nv to apptainer_options",
            )
    return Finding("gpus", Verdict.OK, f"{wanted} on each machine")


def _temporary_folder(reports: Sequence[MachineReport]) -> Finding:
    for report in reports:
        if report.temporary_problem:
            return Finding(
                "temporary folder",
                Verdict.FAILED,
                f"{report.host}: {report.temporary_problem}",
                "set node_local in the profile to a folder that can be written there",
            )
    least = min(reports, key=lambda report: report.temporary_free_gb)
    message = f"{least.temporary_folder} has {least.temporary_free_gb:.1f} GB free on {least.host}"
    if least.temporary_free_gb < _LITTLE_GB:
        return Finding("temporary folder", Verdict.WARNING, message, "set node_local in the profile to a larger one")
    return Finding("temporary folder", Verdict.OK, message)
