"""The controller's own job on a Slurm cluster: submitted once, found by name, requeued by itself."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc import shipped
from llmzero_hpc.cluster.job_environment import job_id, restart_count
from llmzero_hpc.cluster.profiles import read_profile
from llmzero_hpc.cluster.slurm_commands import SlurmCommands
from llmzero_hpc.errors import ClusterError, ConfigurationError
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.store.daemon_file import QueuedController, clear_queued, read_queued, write_queued
from llmzero_hpc.store.lease import ControllerJob

if TYPE_CHECKING:
    from llmzero_hpc.cluster.profile import ClusterProfile
    from llmzero_hpc.store.search_directory import SearchDirectory

TEMPLATE = "controller.sbatch"
_TIMEOUT_SECONDS = 60.0
_WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})


def own_job() -> ControllerJob | None:
    """The job that this process runs in, None outside of one."""
    return ControllerJob(job_id(), restart_count()) if job_id() else None


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A controller's job that Slurm has in its queue; `reason` is why it does not run, in Slurm's word."""

    job_id: str
    is_running: bool
    reason: str


class ControllerJobs:
    """The jobs of one search's controller, of which there should be one at a time. All have the same name.

    Raises:
        ConfigurationError: the search's phases do not run on Slurm, or its cluster profile is wrong.
        MissingDependencyError: this machine has no Slurm.
    """

    def __init__(self, directory: SearchDirectory) -> None:
        record = directory.record
        settings = record.config.cluster
        if not isinstance(settings, SlurmClusterConfig):
            raise ConfigurationError(
                f"the phases of {record.config.name} run on this machine itself (cluster.kind: local), and its "
                "controller must, too",
                f"`llmzero-hpc start {record.config.name} --on login`",
            )
        self._directory = directory
        self._settings = settings
        self._profile = read_profile(settings.profile, settings.profiles)
        self._commands = SlurmCommands(Counter(), _TIMEOUT_SECONDS)
        self.name = f"lz-{record.config.name}-{record.token}-controller"

    def command(self) -> list[str]:
        """The command that submits the job.

        Raises:
            ConfigurationError: the script is missing.
        """
        script = shipped.path("slurm_templates", TEMPLATE, self._settings.templates)
        mail = self._directory.record.config.notify.mail
        root = str(self._directory.root)
        options = {
            "job-name": self.name,
            "output": root.replace("%", "%%") + "/controller.log",
            "chdir": root,
            **_placement(self._profile),
            **({"mail-user": mail, "mail-type": "END,FAIL"} if mail else {}),
        }
        words = [f"--{key}={value}" for key, value in options.items()]
        return ["sbatch", "--parsable", *words, str(script), root, sys.executable]

    def submit(self) -> LiveJob:
        """Submit the job, unless it is there. For whoever holds the search's lease: so two never do it at once.

        Raises:
            ClusterError: Slurm refuses it, or cannot be asked.
            StorageError: the job cannot be noted in the search's folder.
        """
        present = self.live()
        if present is None:
            answer = self._commands.run(*self.command())
            # When sbatch failed, Slurm may have taken the job and only the answer be lost.
            present = self.live()
            if present is None:
                raise ClusterError(
                    f"the controller's job was not taken: {answer.complaint or 'it is not in the queue'}",
                    f"see {self._directory.root / 'controller.log'}",
                )
        write_queued(self._directory, QueuedController(present.job_id, time.time()))
        return present

    def live(self) -> LiveJob | None:
        """The job, if Slurm has it queued or running; the running one if there were two.

        Raises:
            ClusterError: Slurm cannot be asked.
        """
        output = self._commands.ask("slurmctld", "squeue", "--noheader", f"--name={self.name}", "--format=%A|%T|%r")
        rows = [line.split("|") for line in output.splitlines() if line.strip()]
        jobs = [LiveJob(number, state not in _WAITING, reason) for number, state, reason in rows]
        return max(jobs, key=lambda job: job.is_running, default=None)

    def cancel(self) -> None:
        """Take the job out of the queue, or end it; does nothing where there is none.

        Raises:
            ClusterError: Slurm cannot be asked.
            StorageError: the note in the search's folder cannot be removed.
        """
        self._commands.ask("slurmctld", "scancel", f"--name={self.name}")
        clear_queued(self._directory)


def waiting_job(directory: SearchDirectory) -> LiveJob | None:
    """The controller's job, if it waits in the queue. Slurm is asked only where a job was ever submitted.

    Raises:
        ClusterError, ConfigurationError, MissingDependencyError: Slurm cannot be asked.
    """
    if read_queued(directory) is None:
        return None
    job = ControllerJobs(directory).live()
    return None if job is None or job.is_running else job


def requeue_own(directory: SearchDirectory, job: ControllerJob) -> None:
    """Put the job that this process runs in back into the queue. Slurm ends the process.

    Raises:
        ClusterError: Slurm refuses.
    """
    write_queued(directory, QueuedController(job.job_id, time.time()))
    answer = SlurmCommands(Counter(), _TIMEOUT_SECONDS).run("scontrol", "requeue", job.job_id)
    if answer.exit_code:
        raise ClusterError(
            f"the controller's job {job.job_id} cannot be requeued: {answer.complaint}",
            f"`llmzero-hpc start {directory.record.config.name} --on slurm` submits another",
        )


def placement(directory: SearchDirectory) -> list[str]:
    """Where jobs of the controller are to run, as options for a batch script.

    Raises:
        ConfigurationError: the cluster profile is wrong.
    """
    settings = directory.record.config.cluster
    if not isinstance(settings, SlurmClusterConfig):
        return []
    options = _placement(read_profile(settings.profile, settings.profiles))
    return [f"--{key}={value}" for key, value in options.items()]


def _placement(profile: ClusterProfile) -> dict[str, str]:
    elsewhere = profile.controller_partition is not None
    options = {
        "account": profile.account,
        "partition": profile.controller_partition or profile.partition,
        "qos": profile.controller_qos or (None if elsewhere else profile.qos),
        "reservation": None if elsewhere else profile.reservation,
    }
    return {key: value for key, value in options.items() if value is not None}
