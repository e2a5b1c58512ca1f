"""Slurm's daemons killed, away for a while or without their memory, and clusters that keep no accounts."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from cluster_options import ClusterOptions
from disturbed_search import DisturbedSearch, chosen, endings, side_by_side
from slurm_cluster import SlurmTestCluster, send

from llmzero_hpc.search.node import Ending

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cluster_options import DaemonName

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def wait_until_remembered(search: DisturbedSearch, job_id: str) -> None:
    """Slurmctld writes down what it knows every five seconds, if that changed; it may be writing an older state."""
    cluster = search.cluster
    cluster.wait_for(lambda: search.state(job_id) == "RUNNING", "its start")
    memory = cluster.root / "state/job_state"
    for change in ("one", "two"):
        changed_at = time.time()
        cluster.run("scontrol", "update", f"JobId={job_id}", f"Comment={change}")
        cluster.wait_for(lambda: _written_after(memory, changed_at), "slurmctld's memory")  # noqa: B023 - asked at once


def _written_after(file: Path, moment: float) -> float:
    """When, or 0 where it was not."""
    written_at = file.stat().st_mtime if file.exists() else 0.0
    return written_at if written_at > moment else 0.0


def slurmctld_killed_mid_run(folder: Path) -> None:
    with SlurmTestCluster() as cluster, DisturbedSearch(cluster, folder) as search:
        for node in (0, 2):
            wait_until_remembered(search, search.job_id(node))
            cluster.stop("ctld", signal.SIGKILL)
            cluster.start("ctld")
        tree = search.finish()
        assert endings(tree, 0) == endings(tree, 2) == [(Ending.COMPLETED, 0)]


def slurmctld_killed_just_after_a_start(folder: Path) -> None:
    """It has forgotten the start, starts the job once more, and holds it when the machine says that it is there."""
    with SlurmTestCluster() as cluster, DisturbedSearch(cluster, folder) as search:
        job_id = search.job_id(0)
        cluster.wait_for(lambda: search.state(job_id) == "RUNNING", "its start")
        started_at = float(cluster.run("squeue", "-h", "-j", job_id, "-o", "%S"))
        cluster.wait_for(lambda: time.time() >= started_at + 2, "two seconds")
        cluster.stop("ctld", signal.SIGKILL)
        cluster.start("ctld")
        tree = search.finish()
        assert endings(tree, 0)[-1][0] is Ending.COMPLETED


def slurmctld_away(folder: Path) -> None:
    """For longer than the job runs, and for many ticks."""
    with SlurmTestCluster() as cluster, DisturbedSearch(cluster, folder) as search:
        with search.held(0) as job_id:
            wait_until_remembered(search, job_id)
            cluster.stop("ctld", signal.SIGKILL)
        search.wait_for_ticks(10, of_outage=True)
        search.wait_for_marker(0)
        assert not search.is_over(0)
        cluster.start("ctld")
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.COMPLETED, 0)]


def slurmctld_frozen(folder: Path) -> None:
    """It accepts connections and answers none."""
    with SlurmTestCluster() as cluster, DisturbedSearch(cluster, folder) as search:
        with search.held(0):
            cluster.freeze("ctld")
        search.wait_for_ticks(3, of_outage=True)
        search.wait_for_marker(0)
        cluster.thaw("ctld")
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.COMPLETED, 0)]


def slurmdbd_away(folder: Path) -> None:
    with SlurmTestCluster() as cluster, DisturbedSearch(cluster, folder) as search:
        search.mid_run(0)
        cluster.stop("dbd", signal.SIGKILL)
        cluster.stop("db", signal.SIGKILL)
        search.mid_run(2)
        assert search.is_over(1)
        cluster.start("db")
        cluster.start("dbd")
        tree = search.finish()
        assert endings(tree, 0) == endings(tree, 2) == [(Ending.COMPLETED, 0)]


def lose_memory(cluster: SlurmTestCluster) -> None:
    """Slurmctld begins anew with the first id; the machines and the accounting know more than it does."""
    cluster.stop("ctld", signal.SIGKILL)
    for file in (cluster.root / "state").glob("job_state*"):
        file.unlink()
    cluster.start("ctld")


def slurmctld_without_memory(folder: Path) -> None:
    """The running job is no longer Slurm's, which may end it before it has ended; its id is the next one's."""
    with SlurmTestCluster() as cluster, DisturbedSearch(cluster, folder) as search:
        assert search.mid_run(0) == "1"
        lose_memory(cluster)
        tree = search.finish(all_booked=False)
        ended = [ending for ending, _ in endings(tree, 0)]
        assert ended.index(Ending.COMPLETED) == len(ended) - 1
        jobs = [attempt.job for node in tree for attempt in node.attempts]
        assert [job.job_id for job in jobs[:2] if job] == ["1", "1"]


def ids_used_again(folder: Path) -> None:
    """A job dies while slurmctld loses its memory: the next attempt has another name and the same id."""
    with SlurmTestCluster() as cluster, DisturbedSearch(cluster, folder) as search:
        first = search.mid_run(0)
        cluster.freeze("ctld")
        send(cluster.job_processes(cast("DaemonName", search.attempt(0).hosts)), signal.SIGKILL)
        lose_memory(cluster)
        tree = search.finish(all_booked=False)
        second = tree[0].attempts[1].job
        assert second is not None
        assert second.job_id == first
        ended = [ending for ending, _ in endings(tree, 0)]
        assert ended.index(Ending.COMPLETED) == len(ended) - 1


def preempted_without_signal_or_accounts(folder: Path) -> None:
    """Asked to go by SIGTERM: the job ends in time, and what Slurm sees is a job that failed."""
    _preempt(ClusterOptions(accounting=False, preempt_user_signal=False, min_job_age=2, grace=60), folder, requeues=0)


def preempted_without_grace_or_accounts(folder: Path) -> None:
    _preempt(ClusterOptions(accounting=False, preempt_user_signal=False, min_job_age=2, grace=0), folder, requeues=1)


def _preempt(options: ClusterOptions, folder: Path, *, requeues: int) -> None:
    with SlurmTestCluster(options) as cluster, DisturbedSearch(cluster, folder, nodelist="node1") as search:
        for node in (0, 2):
            search.mid_run(node)
            important = ("sbatch", "--partition=high", "--nodelist=node1", "--exclusive", "--output=/dev/null")
            cluster.run(*important, "--wrap", "sleep 1")
        tree = search.finish()
        lost = [] if requeues else [(Ending.VANISHED, 0)]
        assert endings(tree, 0) == endings(tree, 2) == [*lost, (Ending.COMPLETED, requeues)]


def gone_without_a_word_or_accounts(folder: Path) -> None:
    """All processes of the job are killed, and squeue forgets it at once."""
    options = ClusterOptions(accounting=False, min_job_age=2)
    with SlurmTestCluster(options) as cluster, DisturbedSearch(cluster, folder) as search:
        search.mid_run(0)
        send(cluster.job_processes(cast("DaemonName", search.attempt(0).hosts)), signal.SIGKILL)
        tree = search.finish()
        assert endings(tree, 0) == [(Ending.VANISHED, 0), (Ending.COMPLETED, 0)]


DISTURBANCES = {
    one.__name__: one
    for one in (
        slurmctld_killed_mid_run,
        slurmctld_killed_just_after_a_start,
        slurmctld_away,
        slurmctld_frozen,
        slurmdbd_away,
        slurmctld_without_memory,
        ids_used_again,
        preempted_without_signal_or_accounts,
        preempted_without_grace_or_accounts,
        gone_without_a_word_or_accounts,
    )
}


@pytest.fixture(scope="module")
def problems(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    names = chosen(request)
    return side_by_side({name: partial(DISTURBANCES[name], tmp_path_factory.mktemp(name)) for name in names})


@pytest.mark.parametrize("name", DISTURBANCES)
def test_the_search_comes_to_the_same_tree(name: str, problems: Mapping[str, str]) -> None:
    assert not problems[name], problems[name]
