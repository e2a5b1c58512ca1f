"""The contract of a cluster: submit a job, find it again by name, observe all jobs at once, cancel."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.trainers.base import LaunchPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmzero_hpc.search.node import Job


class JobState(StrEnum):
    """What the cluster says of a job. The first two are live, the rest ended."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIME_LIMIT = "time_limit"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node_failure"

    @property
    def is_live(self) -> bool:
        """Queued or running."""
        return self in {JobState.PENDING, JobState.RUNNING}


@dataclass(frozen=True, slots=True)
class Charge:
    """What the cluster's accounting says a job cost: device-seconds (GPUs, or CPUs without any) of all its runs.

    `final` once every run has ended and is in the books; until then the figure may still grow.
    """

    device_seconds: float
    final: bool


@dataclass(frozen=True, slots=True)
class JobObservation:
    """One witness on a job.

    Attributes:
        state: what the cluster says.
        started_at: start of its present or last run, seconds since the epoch; None while unknown.
        reason: the cluster's own word (why it is pending, how it ended), for people.
        restarts: how often the cluster requeued it.
        hosts: the machines of its present or last run, as the cluster writes lists of them; empty while unknown.
        charge: what accounting says it cost; None where accounting has not been asked, or said nothing.
    """

    state: JobState
    started_at: float | None = None
    reason: str = ""
    restarts: int = 0
    hosts: str = ""
    charge: Charge | None = None


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to run.

    `name` is unique for ever: one attempt of one node. `directory` is the attempt's folder; `cluster.phase_job` runs
    `plan` there, logs to `trainer.log`, and writes the marker last. `devices` are its GPUs on all `nodes` machines
    together, or when `gpus` is false its CPUs on each of them. `progress` is a folder whose content changes when the
    phase gains a checkpoint: a run that ends at its time limit without such a change is not worth another in the same
    job.
    """

    name: str
    directory: Path
    plan: LaunchPlan
    attempt: int
    devices: int
    gpus: bool
    time_limit_seconds: float | None
    """None: the cluster's own."""
    nodes: int = 1
    avoid: str = ""
    """Machines that are to be avoided, as `JobObservation.hosts` writes them."""
    progress: Path | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a submission would be: the very script, and the cluster's own estimate of the start, for people."""

    script: str
    estimate: str


class Cluster(ABC):
    """Where jobs run. Used by one controller at a time, from one thread.

    A job outlives the controller: killing it at any instant neither ends nor doubles a job. Absence is not
    completion: a job that `observe` leaves out is unknown at the moment, no more. A call that raises `ClusterError`
    has told nothing, and changes nothing.

    `calls` counts the commands sent to the cluster, by name, for people; `keeps_accounts` says whether `observe` may
    bring a `Charge` for jobs that have ended, so that it is worth asking for them again. Time limits are rounded down
    to multiples of `time_limit_grain_seconds`, none is shorter than that, and a request without one gets
    `time_limit_seconds`.
    """

    keeps_accounts: bool = False
    time_limit_grain_seconds: float = 1.0
    time_limit_seconds: float = math.inf

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    @abstractmethod
    def submit(self, request: JobRequest) -> Job:
        """Queue a job. May block for seconds.

        Raises:
            ClusterError: it was refused, **or its fate is unknown**: ask `find` before trying again.
        """

    @abstractmethod
    def preview(self, request: JobRequest) -> Preview:
        """What `submit` would hand to the cluster. Submits nothing, and may write below `request.directory` only.

        Raises:
            ClusterError: it would be refused; the message is the cluster's.
        """

    @abstractmethod
    def find(self, name: str, directory: Path) -> Job | None:
        """The job of that name if the cluster accepted it, live or ended; None when it certainly did not.

        Raises:
            ClusterError: the cluster cannot say at the moment.
        """

    @abstractmethod
    def observe(self, jobs: Sequence[Job]) -> Mapping[str, JobObservation]:
        """What is known of these jobs, by name, in one question to the cluster.

        Raises:
            ClusterError: the cluster cannot be asked at the moment.
        """

    @abstractmethod
    def cancel(self, job: Job) -> None:
        """Ask for a job's end; returns at once, may be repeated, does nothing for a job that has ended.

        Raises:
            ClusterError: the request did not reach the cluster.
        """
