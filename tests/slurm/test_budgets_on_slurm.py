"""Budgets on a real Slurm: its own books say that none was overspent, and its own time limits hold without us."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from searches import CPU_PROFILE, on_slurm, rehearsal

from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.report.data import to_json
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from pathlib import Path

    from slurm_cluster import SlurmTestCluster

    from llmzero_hpc.store.search_directory import SearchDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def drive(directory: SearchDirectory) -> None:
    with Daemon(directory) as daemon:
        assert daemon.loop().finished


def books(slurm: SlurmTestCluster) -> float:
    """CPU-seconds of all jobs, as Slurm charges them; every job has one CPU."""
    rows = slurm.wait_for(
        lambda: slurm.sacct_rows() if all(row.ended_at for row in slurm.sacct_rows()) else [], "closed books"
    )
    return float(sum(row.elapsed_seconds for row in rows))


def test_the_compute_budget_is_not_overspent_and_status_agrees_with_the_books(
    clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    directory = rehearsal(
        tmp_path / "search",
        on_slurm(tmp_path, CPU_PROFILE),
        max_parallel_phases=3,
        budget={"iterations": 40, "device_hours": 130 / 3600},
        rehearsal={"step_seconds": 0.1, "failure_rate": 0.0, "train_rows": 512},
        configuration={"epochs": 6.0, "batch_size": 64},
    )
    drive(directory)
    tree, spent = directory.read_tree(), books(clean_slurm)

    assert 130 - 60 <= spent <= 130
    assert all(node.attempts for node in tree), "nothing is planned that cannot be submitted"
    data = to_json(read(directory))
    compute = data["budget"][1]
    assert compute["used"] * 3600 == pytest.approx(spent)
    assert (compute["estimated"], compute["reserved"]) == (0.0, 0.0)
    assert data["state"] == "finished"
    assert {"squeue", "sbatch"} <= set(data["controller"]["calls"])


def test_a_job_has_a_time_limit_that_the_budget_covers_so_that_nobody_has_to_watch_it(
    clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    directory = rehearsal(
        tmp_path / "search",
        on_slurm(tmp_path, CPU_PROFILE),
        budget={"iterations": 40, "device_hours": 119 / 3600},
        rehearsal={"step_seconds": 30.0, "failure_rate": 0.0, "train_rows": 512},
    )
    # one tick in a process of its own, which is gone afterwards
    program = (
        "import pathlib, sys; from llmzero_hpc.controller.daemon import Daemon;"
        "from llmzero_hpc.store.search_directory import SearchDirectory;"
        "daemon = Daemon(SearchDirectory.open(pathlib.Path(sys.argv[1]))); daemon.tick(); sys.exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(directory.root)], check=True, env=dict(os.environ))
    (node,) = directory.read_tree()
    assert node.attempts[0].allowance == 60.0, "whole minutes of what is left"
    job = node.attempts[0].job
    assert job is not None
    assert "TimeLimit=00:01:00" in clean_slurm.run("scontrol", "show", "job", job.job_id)


def test_the_deadline_cancels_what_runs(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    directory = rehearsal(
        tmp_path / "search",
        on_slurm(tmp_path, CPU_PROFILE),
        budget={"iterations": 40, "deadline_hours": 0.5},
        rehearsal={"step_seconds": 1.0, "failure_rate": 0.0, "train_rows": 4096},
    )
    leap = 0.0
    with Daemon(directory, clock=lambda: time.time() + leap) as daemon:

        def has_checkpoint() -> bool:
            daemon.tick()
            tree = directory.read_tree()
            return bool(len(tree) and tree[0].checkpoints)

        clean_slurm.wait_for(has_checkpoint, "a checkpoint")
        assert clean_slurm.jobs_in_queue()
        leap = 1800.0
        assert daemon.loop().finished
    tree = directory.read_tree()

    assert [node.status for node in tree] == [NodeStatus.EARLY_STOPPED]
    assert tree[0].stop is not None
    assert tree[0].stop.reason == "the deadline has passed"
    assert tree[0].score is not None
    assert tree.evaluation is not None
    assert tree.evaluation.score is not None
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")
