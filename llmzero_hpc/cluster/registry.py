"""Which cluster a search runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.cluster.local import LocalCluster

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.cluster.base import Cluster
    from llmzero_hpc.config import SearchConfig


def make_cluster(config: SearchConfig, search_root: Path) -> Cluster:
    """The cluster that a search asks for; what it must remember of its jobs goes below the search's folder.

    Raises:
        MissingDependencyError: what that cluster needs is not installed.
    """
    match config.cluster.kind:
        case "local":
            return LocalCluster(search_root / "cluster")
