"""A search's own language model server as a job of a real Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from searches import CPU_PROFILE, on_slurm
from served import authors, files_with, search, server_of, stand_in, tick_until

from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from slurm_cluster import SlurmTestCluster

    from llmzero_hpc.store.search_directory import SearchDirectory

pytestmark = pytest.mark.slow

SERVER_PROFILE = {
    "partition": "low",
    "gpus_per_node": 2,
    "gpu_type": "a100",
    "cpus_per_node": 2,
    "memory_gb_per_node": 2,
    "time_limit_minutes": 30,
    "nodelist": "node4",
}
PHASES_PROFILE = CPU_PROFILE | {"nodelist": "node1"}
"""What disturbs the server's machine is no business of the phases."""


def served_search(folder: Path, name: str, **changes: Any) -> SearchDirectory:
    cluster = on_slurm(folder, PHASES_PROFILE)
    profiles = Path(cluster["profiles"])
    profiles.write_text(profiles.read_text() + f"big: {SERVER_PROFILE}\n")
    serve = {**stand_in(folder), "profile": "big"}
    return search(folder / "state" / name, serve, cluster=cluster, tick_seconds=0.5, **changes)


def test_a_server_that_is_preempted_comes_back(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    directory = served_search(
        tmp_path,
        "served",
        budget={"iterations": 3},
        rehearsal={"step_seconds": 0.5, "train_rows": 64, "failure_rate": 0.0},
    )
    server = server_of(directory)

    def is_up(restart: int) -> bool:
        word = server.announcement(1) if server.newest() else None
        return word is not None and word[0].restart == restart and word[0].up_at is not None

    with Daemon(directory) as daemon:
        tick_until(daemon, lambda: is_up(0))
        [job] = [job for job in clean_slurm.jobs_in_queue() if "-server-1" in job.name]
        assert job.nodes == "node4"
        shown = clean_slurm.run("scontrol", "show", "job", job.job_id)
        assert "gres/gpu:a100=2" in shown
        assert f"Comment=llmzero-hpc: search {server.name}, phase server, attempt 1" in shown
        first = server.announcement(1)
        urgent = ("-p", "high", "-w", "node4", "--exclusive", "--mem=1G", "--parsable", "--wrap", "sleep 600")
        other = clean_slurm.run("sbatch", "-o", "/dev/null", *urgent).strip()
        tick_until(daemon, lambda: "pending" in read(directory).controller.server)
        assert job.job_id in read(directory).controller.server
        # What trains goes on training, and what is planned waits.
        tick_until(daemon, lambda: directory.read_tree()[0].status is NodeStatus.COMPLETED)
        clean_slurm.run("scancel", other)
        tick_until(daemon, lambda: is_up(1))
        tick_until(daemon, lambda: daemon.tick().finished)
    second = server.announcement(1)
    assert first
    assert second
    assert not first[0].host.startswith("127.")
    assert first[0].port != second[0].port
    assert server.newest() == 1, "Slurm queued the same job again"
    tree = directory.read_tree()
    assert authors(tree) == {"Tiny Model"}
    assert [len(node.attempts) for node in tree] == [1, 1, 1]
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")
    assert read(directory).budget[1].used > 0
    key = server.key()
    # Slurm keeps scripts, environments, its database and logs below its own folder.
    assert files_with(key, tmp_path, clean_slurm.root) == {"key"}


def test_a_server_whose_machine_dies_is_started_elsewhere(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    directory = served_search(tmp_path, "served", budget={"iterations": 2})
    server = server_of(directory)
    with Daemon(directory) as daemon:
        tick_until(daemon, lambda: server.newest() and server.has_been_up(1))
        clean_slurm.kill_node("node4", with_jobs=True)
        tick_until(daemon, lambda: "answers" not in read(directory).controller.server)
        clean_slurm.wait_for(lambda: any(state.startswith("down") for state in clean_slurm.node_states()), "its loss")
        clean_slurm.start("node4")
        clean_slurm.ask("scontrol", "update", "NodeName=node4", "State=RESUME")
        tick_until(daemon, lambda: daemon.tick().finished)
    assert authors(directory.read_tree()) == {"Tiny Model"}
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")


def test_two_searches_share_one_job(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    one, two = served_search(tmp_path, "one", iterations=2), served_search(tmp_path, "two", iterations=2)
    server = server_of(one)
    assert server.path == server_of(two).path
    names = set()

    def servers() -> set[str]:
        names.update(job.name for job in clean_slurm.jobs_in_queue() if "-server-" in job.name)
        return names

    with Daemon(one) as first, Daemon(two) as second:
        tick_until(first, servers)
        tick_until(second, lambda: second.tick().finished)
        assert servers()
        assert any("-server-" in job.name and job.state == "RUNNING" for job in clean_slurm.jobs_in_queue())
        tick_until(first, lambda: first.tick().finished)
    assert len(servers()) == 1
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")
    assert authors(one.read_tree()) == authors(two.read_tree()) == {"Tiny Model"}
