"""Machines that lose Slurm, hang, die or are taken away under a running job change no search."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from cluster_options import ClusterOptions
from disturbed_search import DisturbedSearch, chosen, endings, side_by_side
from slurm_cluster import send

from llmzero_hpc.search.node import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cluster_options import DaemonName
    from slurm_cluster import SlurmTestCluster
    from slurm_fixtures import StartSlurm

    from llmzero_hpc.search.tree import Tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def machine_of(search: DisturbedSearch, job_id: str) -> DaemonName:
    return cast("DaemonName", search.machine(job_id))


def assert_requeued_and_completed(tree: Tree) -> None:
    """In another attempt, if Slurm's own srun of the lost run took the next one along: their steps share a number."""
    ended = endings(tree, 0)
    assert ended[0][1] == 1
    assert ended[-1][0] is Ending.COMPLETED


def is_trainer(pid: int) -> bool:
    try:
        return b"rehearsal.train" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def slurmd_killed_and_started_again(cluster: SlurmTestCluster, folder: Path) -> None:
    """Before Slurm misses it: the job has not noticed anything."""
    with DisturbedSearch(cluster, folder, nodelist="node4") as search:
        search.mid_run(0)
        cluster.stop("node4", signal.SIGKILL)
        cluster.start("node4")
        search.mid_run(2)
        cluster.kill_node("node4", with_steps=False)
        search.wait_for_marker(2)
        cluster.start("node4")
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.COMPLETED, 0)]


def slurmd_killed(cluster: SlurmTestCluster, folder: Path) -> None:
    """The machine is given up and works on: the job's next run ends the one that is still there."""
    with DisturbedSearch(cluster, folder, exclude="node3,node4") as search:
        with search.held(0) as job_id:
            lost = machine_of(search, job_id)
            cluster.stop(lost, signal.SIGKILL)
        cluster.run("scontrol", "update", f"NodeName={lost}", "State=DOWN", "Reason=test")
        assert cluster.job_processes(lost)
        assert_requeued_and_completed(search.finish())
        cluster.wait_for(lambda: not cluster.job_processes(lost), "the end of what ran there")


def machine_lost(cluster: SlurmTestCluster, folder: Path) -> None:
    with DisturbedSearch(cluster, folder, exclude="node3,node4") as search:
        lost = machine_of(search, search.mid_run(0))
        cluster.kill_node(lost, with_jobs=True)
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.COMPLETED, 1)]


def late_writes_of_a_dead_run(cluster: SlurmTestCluster, folder: Path) -> None:
    """A machine hangs, loses Slurm, and wakes up when the job's next run is at work: its rows do not count."""
    # Steps are left to write when all is in place. It cannot be held for that: losing Slurm hangs up what is stopped.
    with DisturbedSearch(cluster, folder, iterations=1, step_seconds=6.0, exclude="node1,node2") as search:
        lost = machine_of(search, search.mid_run(0))
        cluster.kill_node(lost)
        dead = cluster.job_processes(lost)
        send(dead, signal.SIGSTOP)
        trainer = next(pid for pid in dead if is_trainer(pid))
        metrics = search.directory.phase(0).attempt(1).metrics

        def runs() -> list[int]:
            return [json.loads(line)["restart"] for line in metrics.read_text().splitlines()]

        cluster.wait_for(lambda: 1 in runs(), "the next run")
        # The trainer first: what runs above it ends it as soon as it sees the next run.
        send([trainer], signal.SIGCONT)
        cluster.wait_for(lambda: 0 in runs()[runs().index(1) :], "a late row")
        send(dead, signal.SIGCONT)
        cluster.start(lost)
        assert_requeued_and_completed(search.finish())


def machine_drained(cluster: SlurmTestCluster, folder: Path) -> None:
    """The job may end, and the next ones run elsewhere; one that waits for that machine alone waits."""
    with DisturbedSearch(cluster, folder, exclude="node3,node4") as search:
        job_id = search.mid_run(0)
        machine = machine_of(search, job_id)
        cluster.run("scontrol", "update", f"NodeName={machine}", "State=DRAIN", "Reason=test")
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.COMPLETED, 0)]
        later = {attempt.hosts for node in tree.nodes[1:] for attempt in node.attempts}
        assert later
        assert machine not in later


def machine_set_down(cluster: SlurmTestCluster, folder: Path) -> None:
    with DisturbedSearch(cluster, folder, exclude="node1,node2") as search:
        machine = machine_of(search, search.mid_run(0))
        cluster.run("scontrol", "update", f"NodeName={machine}", "State=DOWN", "Reason=test")
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.COMPLETED, 1)]


PAIRS = (
    (slurmd_killed, slurmd_killed_and_started_again),
    (machine_lost, late_writes_of_a_dead_run),
    (machine_drained, machine_set_down),
)
"""Each shares a cluster, half of the machines for each."""
DISTURBANCES = {one.__name__: one for pair in PAIRS for one in pair}


@pytest.fixture(scope="module")
def problems(
    request: pytest.FixtureRequest, start_slurm: StartSlurm, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    disturbances: dict[str, Callable[[], None]] = {}
    for pair in PAIRS:
        names = [one.__name__ for one in pair if one.__name__ in chosen(request)]
        if names:
            cluster = start_slurm(ClusterOptions())
            disturbances |= {
                name: partial(DISTURBANCES[name], cluster, tmp_path_factory.mktemp(name)) for name in names
            }
    return side_by_side(disturbances)


@pytest.mark.parametrize("name", DISTURBANCES)
def test_the_search_comes_to_the_same_tree(name: str, problems: Mapping[str, str]) -> None:
    assert not problems[name], problems[name]
