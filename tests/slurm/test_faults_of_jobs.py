"""What happens to single jobs on a cluster - preempted, requeued, out of time, held, cancelled - changes no search."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from disturbed_search import DisturbedSearch, chosen, endings, side_by_side

from llmzero_hpc.search.node import Ending

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from slurm_cluster import SlurmTestCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def preempted_with_its_signal(cluster: SlurmTestCluster, folder: Path) -> None:
    with DisturbedSearch(cluster, folder, nodelist="node1") as search:
        search.mid_run(0)
        important = ("sbatch", "--partition=high", "--nodelist=node1", "--exclusive", "--output=/dev/null")
        cluster.run(*important, "--wrap", "sleep 1")
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.COMPLETED, 1)]


def requeued_by_hand(cluster: SlurmTestCluster, folder: Path) -> None:
    with DisturbedSearch(cluster, folder, exclude="node1") as search:
        cluster.run("scontrol", "requeue", search.mid_run(0))
        cluster.run("scontrol", "requeue", search.mid_run(2))
        tree = search.finish()
        assert endings(tree, 0) == endings(tree, 2) == [(Ending.COMPLETED, 1)]


def held_and_released(cluster: SlurmTestCluster, folder: Path) -> None:
    with DisturbedSearch(cluster, folder, exclude="node1") as search:
        job_id = search.mid_run(0)
        cluster.run("scontrol", "requeuehold", job_id)
        cluster.wait_for(lambda: search.state(job_id) == "PENDING", "its return to the queue")
        search.wait_for_ticks(8)
        cluster.run("scontrol", "release", job_id)
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.COMPLETED, 1)]


def suspended_and_resumed(cluster: SlurmTestCluster, folder: Path) -> None:
    with DisturbedSearch(cluster, folder, exclude="node1") as search:
        job_id = search.mid_run(2)
        cluster.run("scontrol", "suspend", job_id)
        cluster.wait_for(lambda: search.state(job_id) == "SUSPENDED", "its suspension")
        search.wait_for_ticks(8)
        cluster.run("scontrol", "resume", job_id)
        tree = search.finish()
        assert endings(tree, 2) == [(Ending.COMPLETED, 0)]


def cancelled_by_somebody(cluster: SlurmTestCluster, folder: Path) -> None:
    """Only `llmzero-hpc cancel` is a decision: whoever calls scancel may not even know what the job is."""
    with DisturbedSearch(cluster, folder, exclude="node1") as search:
        first = search.mid_run(0)
        cluster.run("scancel", first)
        cluster.wait_for(lambda: search.job_id(0) != first, "the next attempt")
        held = search.job_id(0)
        cluster.ask("scontrol", "hold", held)  # refused where it runs already
        cluster.run("scancel", held)
        tree = search.finish()
        assert [ending for ending, _ in endings(tree, 0)] == [Ending.STOPPED, Ending.STOPPED, Ending.COMPLETED]


def out_of_time_again_and_again(cluster: SlurmTestCluster, folder: Path) -> None:
    """Slurm looks at its limits, which are minutes, every 30 s; most runs gain a checkpoint and are queued again.

    It may signal a run in its first second, or only end it at its limit: no run has time for all steps.
    """
    options = {"exclude": "node1", "time_limit_minutes": 1, "signal_seconds": 30}
    # On a busy machine a run may be over before its first checkpoint.
    patient = {"max_attempts": 50}
    with DisturbedSearch(cluster, folder, iterations=1, step_seconds=12.0, changes=patient, **options) as search:
        tree = search.finish()
        *lost, last = endings(tree, 0)
        assert last[0] is Ending.COMPLETED
        assert {ending for ending, _ in lost} <= {Ending.TIME_LIMIT}
        assert len(lost) + sum(restarts for _, restarts in endings(tree, 0)) >= 3


DISTURBANCES = {
    one.__name__: one
    for one in (
        preempted_with_its_signal,
        requeued_by_hand,
        held_and_released,
        suspended_and_resumed,
        cancelled_by_somebody,
        out_of_time_again_and_again,
    )
}


@pytest.fixture(scope="module")
def problems(
    request: pytest.FixtureRequest, slurm: SlurmTestCluster, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    names = chosen(request)
    return side_by_side({name: partial(DISTURBANCES[name], slurm, tmp_path_factory.mktemp(name)) for name in names})


@pytest.mark.parametrize("name", DISTURBANCES)
def test_the_search_comes_to_the_same_tree(name: str, problems: Mapping[str, str]) -> None:
    assert not problems[name], problems[name]
