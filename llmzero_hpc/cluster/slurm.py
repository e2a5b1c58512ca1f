"""A Slurm cluster behind the contract of all clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import Cluster, JobObservation, JobRequest, Preview

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llmzero_hpc.cluster.profile import ClusterProfile
    from llmzero_hpc.search.node import Job
    from llmzero_hpc.sections import SlurmClusterConfig


class SlurmCluster(Cluster):
    """Jobs of a Slurm cluster."""

    keeps_accounts = True

    def __init__(self, directory: Path, settings: SlurmClusterConfig, profile: ClusterProfile) -> None:
        super().__init__()

    def submit(self, request: JobRequest) -> Job:
        raise NotImplementedError

    def preview(self, request: JobRequest) -> Preview:
        raise NotImplementedError

    def find(self, name: str, directory: Path) -> Job | None:
        raise NotImplementedError

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, JobObservation]:
        raise NotImplementedError

    def cancel(self, job: Job) -> None:
        raise NotImplementedError
