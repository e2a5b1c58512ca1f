"""Slurm clusters for tests: fixtures, and who is left out where there can be none."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from slurm_cluster import SlurmTestCluster, why_not_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster_options import ClusterOptions

_HERE = Path(__file__).parent
_FIXTURES = {"slurm", "clean_slurm", "start_slurm"}


class StartSlurm(Protocol):
    """Starts a cluster with options of its own; it is wiped when the test's module ends."""

    def __call__(self, options: ClusterOptions) -> SlurmTestCluster:
        """The cluster, up. Its `environment` has to be set for whoever is to use it."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a cluster, and leave it out, with the reason, where there can be none."""
    needy = [
        item
        for item in items
        if item.path.is_relative_to(_HERE) or _FIXTURES.intersection(getattr(item, "fixturenames", ()))
    ]
    reason = why_not_here() if needy else ""
    for item in needy:
        item.add_marker("slurm")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def start_slurm() -> Iterator[StartSlurm]:
    """A factory of clusters, for options that are not the default ones."""
    with ExitStack() as clusters:
        yield lambda options: clusters.enter_context(SlurmTestCluster(options))


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmTestCluster]:
    """A cluster with default options that the tests of a module share; its clients find it by the environment."""
    with SlurmTestCluster() as cluster, pytest.MonkeyPatch.context() as patch:
        for key, value in cluster.environment.items():
            patch.setenv(key, value)
        yield cluster


@pytest.fixture
def clean_slurm(slurm: SlurmTestCluster) -> SlurmTestCluster:
    """The module's cluster with nothing of an earlier test: an empty queue, every daemon up, idle machines."""
    slurm.clear()
    return slurm
