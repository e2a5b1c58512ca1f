"""Which cluster a search runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.cluster.local import LocalCluster
from llmzero_hpc.sections import LocalClusterConfig

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.cluster.base import Cluster
    from llmzero_hpc.config import SearchConfig


def make_cluster(config: SearchConfig, search_root: Path) -> Cluster:
    """The cluster that a search asks for; what it must remember of its jobs goes below the search's folder.

    Raises:
        MissingDependencyError: what that cluster needs is not installed.
        ConfigurationError: the cluster profile is missing or wrong.
    """
    settings = config.cluster
    if isinstance(settings, LocalClusterConfig):
        return LocalCluster(search_root / "cluster", secrets=config.secret_variables())
    from llmzero_hpc.cluster.profiles import read_profile
    from llmzero_hpc.cluster.slurm import SlurmCluster

    profile = read_profile(settings.profile, settings.profiles)
    return SlurmCluster(search_root / "cluster", settings, profile, secrets=config.secret_variables())
