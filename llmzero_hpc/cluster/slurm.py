"""A Slurm cluster behind the contract of all clusters."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import Cluster, JobObservation, JobRequest, Preview
from llmzero_hpc.cluster.job_environment import scrubbed
from llmzero_hpc.cluster.job_script import interpreter, job_script
from llmzero_hpc.cluster.phase_job import PhaseJob
from llmzero_hpc.cluster.processes import job_folder
from llmzero_hpc.cluster.ray_cluster import write_ray_scripts
from llmzero_hpc.cluster.slurm_accounting import Accounting
from llmzero_hpc.cluster.slurm_calls import LOG, Fate, SubmitCall, calls_in, prepare
from llmzero_hpc.cluster.slurm_commands import SlurmCommands, is_silence
from llmzero_hpc.cluster.slurm_queue import QUEUE_FORMAT, QueuedJob, parse_queue
from llmzero_hpc.cluster.slurm_refusals import refusal
from llmzero_hpc.cluster.slurm_submit import KILL_AFTER_SECONDS, request_of, with_pickup
from llmzero_hpc.errors import ClusterError, ConfigurationError, MissingDependencyError, StorageError
from llmzero_hpc.search.node import Job
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.store.atomic import PRIVATE_FOLDER, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from llmzero_hpc.cluster.job_script import JobScript
    from llmzero_hpc.cluster.profile import ClusterProfile

_GRACE_SECONDS = 20.0
"""Between a command's SIGTERM and its SIGKILL; less than Slurm's KillWait, which is 30 s where a site does not say."""
_LAUNCHER_SECONDS = 20.0
"""What a launcher needs beside sbatch."""
_HARMLESS = ("Invalid job id", "already completing or completed")
"""Complaints of scancel about a job that has ended."""


class SlurmCluster(Cluster):
    """Jobs of a Slurm cluster: `sbatch` through submitit, `squeue` for what lives, `sacct` for what it cost.

    squeue is the authority on a job while it knows it as live. A job is told from others by its name, which is unique
    for ever, and its id, which Slurm uses again. `directory` lies in the folder of the search, below which jobs start.
    """

    keeps_accounts = True
    time_limit_grain_seconds = SlurmClusterConfig.time_limit_grain_seconds

    def __init__(
        self,
        directory: Path,
        settings: SlurmClusterConfig,
        profile: ClusterProfile,
        *,
        secrets: Collection[str] = (),
        query_timeout_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`secrets` are variables of the controller's environment that are kept from jobs."""
        if importlib.util.find_spec("submitit") is None:
            raise MissingDependencyError(
                "submitit, which submits jobs to Slurm, is not installed", "pip install 'llmzero-hpc[slurm]'"
            )
        super().__init__()
        self._search = directory.resolve().parent
        self._settings = settings
        self._profile = profile
        self._secrets = secrets
        self._commands = SlurmCommands(self.calls, query_timeout_seconds, clock)
        self._accounting = Accounting(self._commands, clock)
        self._endings: dict[str, JobObservation] = {}
        self.time_limit_seconds = 60.0 * (settings.time_limit_minutes or profile.time_limit_minutes)

    def submit(self, request: JobRequest) -> Job:
        """Hand a job to sbatch, in a process of its own; takes about a second, and at most the timeout for sbatch."""
        self._commands.check("slurmctld")
        script = self._script(request)
        try:
            call = self._prepared(request, script)
            self._launch(call)
            fate, job_id = call.fate()
            if fate is Fate.ACCEPTED:
                return _job(request.name, call, job_id)
            words = _last_line(call.request_file.with_name(LOG))
        except (OSError, StorageError) as error:
            raise ClusterError(f"{request.name} cannot be submitted: {error}") from error
        if not call.is_sent:
            raise ClusterError(f"{request.name} cannot be submitted: {words}")
        if fate is Fate.GIVEN_UP:
            raise ClusterError(f"Slurm refused {request.name}: {self._refusal(words)}")
        raise ClusterError(f"whether Slurm accepted {request.name} is not known: {words}", "it is asked by the name")

    def preview(self, request: JobRequest) -> Preview:
        """The script as submitit writes it, and the start that `sbatch --test-only` estimates."""
        script = self._script(request)
        folder = Path(job_folder(request.directory, request.name)) / "request-1"
        text = with_pickup(script, folder).text(folder)
        answer = self._commands.run("sbatch", "--test-only", text=text, slurm_times=False)
        if answer.exit_code:
            raise ClusterError(f"Slurm would refuse {request.name}: {self._refusal(answer.complaint)}")
        return Preview(text, _estimate(answer.complaint))

    def find(self, name: str, directory: Path) -> Job | None:
        """The job as its submission folder shows it, or else as Slurm does.

        A launcher that has not called sbatch yet never will after this. One that has is waited for, as long as its
        sbatch may take and once more; if Slurm does not know the job then, it will never run.
        """
        try:
            calls = calls_in(Path(job_folder(directory, name)))
            for call in calls:
                call.take(send=False)
                fate, job_id = call.fate()
                if fate is Fate.ACCEPTED:
                    call.accept(job_id)
                    return _job(name, call, job_id)
            asked_at = time.time()
            rows = self._queue([name])
            return self._found(name, calls, rows, asked_at)
        except (OSError, StorageError) as error:
            raise ClusterError(f"whether {name} was submitted cannot be read: {error}") from error

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, JobObservation]:
        """One squeue for all jobs, and one sacct for those that squeue does not show as live."""
        if not jobs:
            return {}
        rows = {(row.name, row.job_id): row for row in self._queue([job.name for job in jobs])}
        ids = {job.name: job.job_id for job in jobs}
        # The phase of a stuck job goes on in another.
        self._cancel_strays([row for row in rows.values() if ids[row.name] != row.job_id or row.is_stuck])
        queued = {job.name: row for job in jobs if (row := rows.get((job.name, job.job_id))) is not None}
        self._accounting.update(jobs, queued)
        self.keeps_accounts = self._accounting.is_kept
        seen = {job.name: self._observation(job, queued.get(job.name)) for job in jobs}
        self._endings = {name: one for name, one in seen.items() if one is not None and not one.state.is_live}
        return {name: one for name, one in seen.items() if one is not None}

    def cancel(self, job: Job) -> None:
        """scancel, by name and id together."""
        self._commands.check("slurmctld")
        answer = self._commands.run("scancel", f"--name={job.name}", job.job_id)
        if not answer.exit_code or any(words in answer.complaint for words in _HARMLESS):
            return
        if is_silence(answer.complaint):
            raise self._commands.failed("slurmctld", answer.complaint)
        raise ClusterError(f"{job.name} cannot be cancelled: {answer.complaint}")

    def _refusal(self, words: str) -> str:
        return refusal(self._settings.profile, self._profile, words)

    def _script(self, request: JobRequest) -> JobScript:
        try:
            return job_script(request, self._profile, self._settings)
        except ConfigurationError as error:
            raise ClusterError(error.message, error.next_step) from error

    def _prepared(self, request: JobRequest, script: JobScript) -> SubmitCall:
        folder = Path(job_folder(request.directory, request.name))
        make_folder(folder, PRIVATE_FOLDER)
        calls = calls_in(folder)
        if any(call.fate()[0] is not Fate.GIVEN_UP for call in calls):
            raise ClusterError(f"{request.name} was submitted before", "the controller adopts it by its name")
        try:
            ray = write_ray_scripts(folder, request.nodes, self._settings.templates) if request.plan.ray else ""
        except ConfigurationError as error:
            raise ClusterError(error.message, error.next_step) from error
        python = interpreter(self._profile)
        job = PhaseJob(
            name=request.name,
            directory=str(request.directory.resolve()),
            command=[python if word == sys.executable else word for word in request.plan.command],
            environment=dict(request.plan.environment),
            attempt=request.attempt,
            devices=request.devices,
            gpus=request.gpus,
            time_limit_seconds=None,
            grace_seconds=_GRACE_SECONDS,
            nodes=request.nodes,
            progress=str(request.progress.resolve()) if request.progress else "",
            ray_scripts=ray,
            signal_seconds=script.parameters["signal_delay_s"],
        )
        timeout = self._settings.submit_timeout_seconds
        call = prepare(folder, len(calls) + 1, request_of(job, script, timeout))
        if call is None:
            raise ClusterError(f"{request.name} is being submitted by another controller")
        make_folder(call.folder, PRIVATE_FOLDER)
        return call

    def _launch(self, call: SubmitCall) -> None:
        """Returns when the launcher has ended, or its time is over: then the files say how far it got."""
        with call.request_file.with_name(LOG).open("ab") as log:
            launcher = subprocess.Popen(
                [sys.executable, "-m", "llmzero_hpc.cluster.slurm_submit", str(call.request_file)],
                cwd=call.folder,
                env=scrubbed(os.environ, self._secrets),  # Slurm keeps it on disk
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        seconds = self._settings.submit_timeout_seconds + KILL_AFTER_SECONDS + _LAUNCHER_SECONDS
        with contextlib.suppress(subprocess.TimeoutExpired):
            launcher.wait(seconds)
        if not call.take(send=False):
            self.calls["sbatch"] += 1

    def _queue(self, names: Sequence[str]) -> list[QueuedJob]:
        """What squeue shows of these names, live or lately ended."""
        output = self._commands.ask(
            "slurmctld",
            *("squeue", "--me", "--noheader", "--states=all", f"--name={','.join(names)}", f"--Format={QUEUE_FORMAT}"),
        )
        try:
            rows = parse_queue(output)
        except ValueError as error:
            raise self._commands.failed("slurmctld", f"squeue's answer cannot be read: {error}") from error
        wanted = set(names)
        return [row for row in rows if row.name in wanted]

    def _found(self, name: str, calls: list[SubmitCall], rows: list[QueuedJob], asked_at: float) -> Job | None:
        """The job of the one call that is undecided, if there is any."""
        undecided = next((call for call in calls if call.fate()[0] is not Fate.GIVEN_UP), None)
        if undecided is None:
            self._cancel_strays(rows if calls else [])
            row = max(rows, key=lambda row: row.submitted_at or 0.0, default=None)
            return None if calls or row is None else Job(row.job_id, name, row.submitted_at or asked_at)
        others = {call.folder.name for call in calls} - {undecided.folder.name}
        own = [row for row in rows if Path(row.folder).name not in others]
        self._cancel_strays([row for row in rows if row not in own])
        ticket = undecided.ticket
        sent_at = ticket.decided_at if ticket else asked_at
        job_id = own[0].job_id if own else ""
        if not own and asked_at >= sent_at + 2 * self._settings.submit_timeout_seconds:
            job_id = self._accounting.job_id(name, sent_at, others)
            if not job_id:
                return self._decided(name, undecided, undecided.give_up())
        if job_id:
            return self._decided(name, undecided, undecided.accept(job_id))
        # It may have been decided while Slurm was asked.
        if undecided.fate()[0] is Fate.UNDECIDED:
            words = _last_line(undecided.request_file.with_name(LOG))
            raise ClusterError(f"whether Slurm accepted {name} is not known yet: {words}")
        return self._decided(name, undecided, undecided.fate())

    @staticmethod
    def _decided(name: str, call: SubmitCall, decision: tuple[Fate, str]) -> Job | None:
        fate, job_id = decision
        return _job(name, call, job_id) if fate is Fate.ACCEPTED else None

    def _cancel_strays(self, rows: Sequence[QueuedJob]) -> None:
        """Jobs that will never run: of calls that were given up and Slurm took late, or stuck."""
        for row in rows:
            # Jobs of a copy of this search have the same names, and are the copy's.
            if row.is_live and Path(row.folder).is_relative_to(self._search):
                with contextlib.suppress(ClusterError):
                    self.cancel(Job(row.job_id, row.name, row.submitted_at or 0.0))

    def _observation(self, job: Job, row: QueuedJob | None) -> JobObservation | None:
        # Slurm forgets what has ended before this controller does, and the books may be closed just then.
        seen = row.observation() if row else self._accounting.ending(job) or self._endings.get(job.name)
        return None if seen is None else replace(seen, charge=self._accounting.charge(job))


def _estimate(complaint: str) -> str:
    """`--test-only` speaks of a job by an id that it will not have."""
    said = re.search(r"to start (at \S+) using .* on nodes (\S+) in partition (\S+)", complaint)
    return f"{said[1]} on {said[2]} of partition {said[3]}" if said else complaint


def _job(name: str, call: SubmitCall, job_id: str) -> Job:
    ticket = call.ticket
    return Job(job_id, name, ticket.decided_at if ticket else 0.0)


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
    return "its launcher ended without a word"
