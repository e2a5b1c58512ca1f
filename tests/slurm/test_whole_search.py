"""Whole searches on a real Slurm: multi-node GPU jobs, their cost to the second, and real training."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from searches import CPU_PROFILE, TWO_GPU_NODES, decisions, on_slurm, rehearsal, short_demo

from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from pathlib import Path

    from slurm_cluster import AccountedJob, SlurmTestCluster

    from llmzero_hpc.search.node import Attempt
    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.search_directory import SearchDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ITERATIONS = 16


def attempts_of(tree: Tree) -> list[Attempt]:
    own = [attempt for node in tree for attempt in node.attempts]
    return own + list(tree.evaluation.attempts if tree.evaluation else ())


def drive(directory: SearchDirectory) -> list[Counter[str]]:
    """Run a search to its end; the commands that each tick sent to the cluster."""
    ticks: list[Counter[str]] = []
    with Daemon(directory) as daemon:
        before = Counter[str]()

        def count(_outcome: object) -> None:
            now = Counter(daemon.calls)
            ticks.append(now - before)
            before.clear()
            before.update(now)

        assert daemon.loop(count).finished
    return ticks


def test_sixteen_phases_on_two_machines_each(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    cluster = on_slurm(tmp_path, TWO_GPU_NODES)
    directory = rehearsal(tmp_path / "search", cluster, max_parallel_phases=2, budget={"iterations": ITERATIONS})
    ticks = drive(directory)
    tree = directory.read_tree()
    assert len(tree) == ITERATIONS
    assert all(node.status.is_final for node in tree)
    assert any(node.status is NodeStatus.COMPLETED for node in tree)
    assert tree.evaluation is not None
    assert tree.evaluation.score is not None

    attempts, own = attempts_of(tree), f"-{directory.record.token}-"
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")

    def booked() -> list[AccountedJob]:
        rows = [row for row in clean_slurm.sacct_rows() if own in row.name]
        return rows if len(rows) >= len(attempts) and all(row.ended_at for row in rows) else []

    rows = clean_slurm.wait_for(booked, "the books")
    assert Counter(row.name for row in rows) == Counter({attempt.name: 1 for attempt in attempts})
    assert {row.name: row.job_id for row in rows} == {a.name: a.job.job_id for a in attempts if a.job}
    assert all("gres/gpu:a100=16" in row.allocated for row in rows)
    assert all(attempt.accounted for attempt in attempts)
    assert {row.name: 16 * row.elapsed_seconds for row in rows} == {a.name: a.device_seconds for a in attempts}

    assert {command for tick in ticks for command in tick} <= {"squeue", "sacct", "sbatch", "scancel"}
    assert max(tick["squeue"] for tick in ticks) == 1
    assert max(tick["sacct"] for tick in ticks) <= 1
    assert sum(tick["sbatch"] for tick in ticks) == len(attempts)


@pytest.mark.training
def test_real_training_is_the_same_on_slurm_as_on_one_machine(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    here = short_demo(tmp_path / "here")
    drive(here)
    there = short_demo(tmp_path / "there", on_slurm(tmp_path, CPU_PROFILE))
    drive(there)
    assert len(there.read_tree()) == 3
    assert decisions(there.read_tree()) == decisions(here.read_tree())
    for node in there.read_tree():
        assert node.checkpoints
        for checkpoint in node.checkpoints:
            name = f"step_{checkpoint.step}/adapter_model.safetensors"
            assert (there.phase(node.id).checkpoints / name).read_bytes() == (
                here.phase(node.id).checkpoints / name
            ).read_bytes()
    names = {attempt.name for attempt in attempts_of(there.read_tree())}
    clean_slurm.wait_for(lambda: names <= {row.name for row in clean_slurm.sacct_rows()}, "the books")
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")
