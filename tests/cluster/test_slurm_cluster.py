"""The Slurm cluster, with a real Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cluster_contract import ClusterContract

from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.cluster.slurm import SlurmCluster
from llmzero_hpc.sections import SlurmClusterConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from slurm_cluster import SlurmTestCluster


class TestSlurmCluster(ClusterContract):
    shortest_limit_seconds = 60.0

    @pytest.fixture
    def make(self, clean_slurm: SlurmTestCluster, tmp_path: Path) -> Callable[[], SlurmCluster]:
        settings = SlurmClusterConfig(kind="slurm", submit_timeout_seconds=10.0)
        return lambda: SlurmCluster(tmp_path / "cluster", settings, ClusterProfile())
