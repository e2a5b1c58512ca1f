"""The contract of a cluster: submit a job, find it again by name, observe all jobs at once, cancel."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
class JobObservation:
    """One witness on a job. `started_at` is None while unknown; `reason` is the cluster's own word, for people."""

    state: JobState
    started_at: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to run.

    `name` is unique for ever: one attempt of one node. `directory` is the attempt's folder; `cluster.phase_job` runs
    `plan` there, logs to `trainer.log`, and writes the marker last. `devices` are GPUs, or CPUs when `gpus` is false.
    """

    name: str
    directory: Path
    plan: LaunchPlan
    attempt: int
    devices: int
    gpus: bool
    time_limit_seconds: float


class Cluster(ABC):
    """Where jobs run. Used by one controller at a time, from one thread.

    A job outlives the controller: killing it at any instant neither ends nor doubles a job. Absence is not
    completion: a job that `observe` leaves out is unknown at the moment, no more. A call that raises `ClusterError`
    has told nothing, and changes nothing.
    """

    @abstractmethod
    def submit(self, request: JobRequest) -> Job:
        """Queue a job. May block for seconds.

        Raises:
            ClusterError: it was refused, **or its fate is unknown**: ask `find` before trying again.
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
