"""The machine at hand as a cluster: jobs are processes, started through submitit's local executor."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzero_hpc.cluster.base import Cluster, JobObservation, JobRequest, JobState, Preview
from llmzero_hpc.cluster.claim import read_claim
from llmzero_hpc.cluster.gpus import visible_gpus
from llmzero_hpc.cluster.job_environment import scrubbed
from llmzero_hpc.cluster.local_submit import Ticket, take_ticket
from llmzero_hpc.cluster.phase_job import PhaseJob
from llmzero_hpc.cluster.processes import JOB_VARIABLE, job_folder, processes_of, with_descendants
from llmzero_hpc.cluster.ray_cluster import write_ray_scripts
from llmzero_hpc.errors import ClusterError, MissingDependencyError, StorageError
from llmzero_hpc.search.node import Job
from llmzero_hpc.store.atomic import PRIVATE_FILE, PRIVATE_FOLDER, create_bytes, make_folder, write_json
from llmzero_hpc.store.marker import read_marker
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import psutil


class LocalCluster(Cluster):
    """Jobs on this machine. They survive the controller, and a reboot ends them.

    `directory` keeps, for each job's name, where its attempt lies. `grace_seconds` pass between a cancel's SIGTERM
    and the SIGKILL that the phase job sends its command; after twice that the next cancel kills everything.
    """

    def __init__(
        self,
        directory: Path,
        grace_seconds: float = 10.0,
        submit_timeout_seconds: float = 60.0,
        secrets: Collection[str] = (),
    ) -> None:
        """`secrets` are variables of the controller's environment that are kept from jobs."""
        if importlib.util.find_spec("submitit") is None:
            raise MissingDependencyError(
                "submitit, which starts jobs on this machine, is not installed", "pip install 'llmzero-hpc[local]'"
            )
        super().__init__()
        self._directory = directory
        self._grace_seconds = grace_seconds
        self._secrets = secrets
        self._submit_timeout_seconds = submit_timeout_seconds

    def submit(self, request: JobRequest) -> Job:
        """Start a job; takes about half a second."""
        self.calls["submit"] += 1
        folder = _submission(request.directory, request.name)
        try:
            if any(ticket.accepted for ticket in _settled_tickets(folder)):
                raise ClusterError(f"{request.name} was submitted before", "the controller adopts it by its name")
            request_file = self._write_request(request, folder)
            launcher = self._launch(request_file)
            # After a timeout the ticket says whether it got far enough.
            with contextlib.suppress(subprocess.TimeoutExpired):
                launcher.wait(self._submit_timeout_seconds)
            ticket = take_ticket(_ticket_file(request_file), accept=False)
        except (OSError, StorageError) as error:
            raise ClusterError(f"{request.name} cannot be started: {error}") from error
        if not ticket.accepted:
            raise ClusterError(f"{request.name} was not started: {_last_line(folder / 'launcher.log')}")
        return _job(request.name, ticket)

    def preview(self, request: JobRequest) -> Preview:
        """The command, as a shell would take it; there is no queue."""
        variables = [f"{key}={value}" for key, value in request.plan.environment.items()]
        return Preview(shlex.join([*variables, *request.plan.command]) + "\n", "at once")

    def find(self, name: str, directory: Path) -> Job | None:
        """The job, if it was accepted. A launcher that has not come to that yet never will after this call."""
        self.calls["find"] += 1
        try:
            tickets = _settled_tickets(_submission(directory, name))
        except (OSError, StorageError) as error:
            raise ClusterError(f"whether {name} was started cannot be read: {error}") from error
        return next((_job(name, ticket) for ticket in tickets if ticket.accepted), None)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, JobObservation]:
        """One look at all processes, and at the files of the jobs that have none."""
        self.calls["observe"] += 1
        places = {job.name: self._attempt_directory(job.name) for job in jobs}
        folders = {name: job_folder(place, name) for name, place in places.items() if place is not None}
        live = processes_of(set(folders.values())) if folders else {}
        found = {}
        for name, folder in folders.items():
            directory = places[name]
            if directory is None:
                continue
            try:
                seen = _live(directory) if folder in live else _ended(directory, name)
            except StorageError as error:
                raise ClusterError(f"{name} cannot be observed: {error}") from error
            if seen is not None:
                found[name] = seen
        return found

    def cancel(self, job: Job) -> None:
        """SIGTERM at first, SIGKILL when asked again after the grace; reaches what the job has left behind, too."""
        import psutil

        self.calls["cancel"] += 1
        directory = self._attempt_directory(job.name)
        if directory is None:
            return
        folder = job_folder(directory, job.name)
        processes = processes_of({folder}).get(folder, [])
        if not processes:
            return
        try:
            if _seconds_since_first_cancel(directory, job.name) > 2 * self._grace_seconds:
                _signal(with_descendants(processes), psutil.Process.kill)
                return
            # The phase job passes it on, so that the command is asked once and its marker still gets written.
            claim = read_claim(AttemptDirectory(directory))
            owner = [process for process in processes if claim is not None and process.pid == claim.pid]
            _signal(owner or with_descendants(processes), psutil.Process.terminate)
        except (OSError, StorageError) as error:
            raise ClusterError(f"{job.name} cannot be cancelled: {error}") from error

    def _write_request(self, request: JobRequest, folder: Path) -> Path:
        make_folder(folder, PRIVATE_FOLDER)
        make_folder(self._directory)
        gpu_ids = self._free_gpus(request.devices) if request.gpus else None
        place = os.path.relpath(request.directory.resolve(), self._directory.resolve())
        write_json(self._directory / f"{request.name}.json", {"directory": place})
        job = PhaseJob(
            name=request.name,
            directory=str(request.directory.resolve()),
            command=list(request.plan.command),
            environment=dict(request.plan.environment),
            attempt=request.attempt,
            devices=request.devices,
            gpus=request.gpus,
            time_limit_seconds=request.time_limit_seconds,
            grace_seconds=self._grace_seconds,
            gpu_ids=gpu_ids,
            ray_scripts=write_ray_scripts(folder, 1) if request.plan.ray else "",
        )
        request_file = folder / f"request-{len(list(folder.glob('request-*.json'))) + 1}.json"
        write_json(request_file, job.request(), PRIVATE_FILE)
        return request_file

    def _launch(self, request_file: Path) -> subprocess.Popen[bytes]:
        with (request_file.parent / "launcher.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "llmzero_hpc.cluster.local_submit", str(request_file)],
                cwd=request_file.parent,
                env={**scrubbed(os.environ, self._secrets), JOB_VARIABLE: str(request_file.parent)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _free_gpus(self, count: int) -> list[str]:
        """The GPUs that the fewest live jobs of this cluster use."""
        here = visible_gpus(os.environ)
        if count > len(here):
            raise ClusterError(f"a phase asks for {count} GPUs, this machine shows {len(here)}", "lower hardware.gpus")
        names = [path.stem for path in self._directory.glob("*.json")]
        places = {name: place for name in names if (place := self._attempt_directory(name)) is not None}
        folders = {job_folder(place, name) for name, place in places.items()}
        taken = [gpu for folder in processes_of(folders) for gpu in _request(Path(folder)).get("gpu_ids") or []]
        return sorted(here, key=taken.count)[:count]

    def _attempt_directory(self, name: str) -> Path | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            place = json.loads((self._directory / f"{name}.json").read_bytes())["directory"]
            return (self._directory / str(place)).resolve()
        return None


def _submission(directory: Path, name: str) -> Path:
    return Path(job_folder(directory, name))


def _ticket_file(request_file: Path) -> Path:
    return request_file.with_suffix(".ticket")


def _settled_tickets(folder: Path) -> list[Ticket]:
    """One ticket for each launcher that was ever started for this job; those still undecided are given up."""
    return [take_ticket(_ticket_file(path), accept=False) for path in folder.glob("request-*.json")]


def _job(name: str, ticket: Ticket) -> Job:
    return Job(job_id=str(ticket.session), name=name, submitted_at=ticket.decided_at)


def _live(directory: Path) -> JobObservation:
    claim = read_claim(AttemptDirectory(directory))
    if claim is None:
        return JobObservation(JobState.PENDING, reason="starting")
    return JobObservation(JobState.RUNNING, started_at=claim.claimed_at)


def _ended(directory: Path, name: str) -> JobObservation | None:
    marker = read_marker(AttemptDirectory(directory))
    if marker is None or marker.name != name:
        return None
    reason = f"exit code {marker.exit_code}"
    if marker.outcome == "completed":
        return JobObservation(JobState.COMPLETED, marker.started_at)
    if marker.outcome in {"error", "infrastructure_error"}:
        return JobObservation(JobState.FAILED, marker.started_at, reason)
    if _cancel_file(directory, name).exists():
        return JobObservation(JobState.CANCELLED, marker.started_at, reason)
    if marker.outcome == "time_limit":
        return JobObservation(JobState.TIME_LIMIT, marker.started_at, reason)
    return JobObservation(JobState.PREEMPTED, marker.started_at, f"ended from outside, {reason}")


def _request(folder: Path) -> dict[str, Any]:
    """The request of an accepted job: its last, as those before were given up."""
    newest = max(folder.glob("request-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))
    request: dict[str, Any] = json.loads(newest.read_bytes())
    return request


def _cancel_file(directory: Path, name: str) -> Path:
    """Made by the first cancel; its time says when the grace began, to a controller that was restarted as well."""
    return _submission(directory, name) / "cancelled"


def _seconds_since_first_cancel(directory: Path, name: str) -> float:
    file = _cancel_file(directory, name)
    create_bytes(file, b"")
    return time.time() - file.stat().st_mtime


def _signal(processes: Iterable[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    import psutil

    for process in processes:
        try:
            send(process)
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied as error:
            raise OSError(str(error)) from error


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
    return "its launcher ended without a word"
