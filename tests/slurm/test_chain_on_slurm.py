"""An exported strategy as jobs of a real Slurm: in order, and with the adapters and scores of the search itself."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from searches import CPU_PROFILE, on_slurm, rehearsal

from llmzero_hpc.cluster.chain import SUBMIT, links, write_chain
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.search.strategy import path
from llmzero_hpc.store.metrics_log import read_series
from llmzero_hpc.trainers.checkpoints import checkpoint_path, complete_checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from slurm_cluster import AccountedJob, SlurmTestCluster

    from llmzero_hpc.cluster.chain import Link
    from llmzero_hpc.store.search_directory import SearchDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def finished(slurm: SlurmTestCluster, tmp_path_factory: pytest.TempPathFactory) -> SearchDirectory:
    """A search of four phases on this Slurm."""
    folder = tmp_path_factory.mktemp("search")
    directory = rehearsal(
        folder / "search",
        on_slurm(folder, CPU_PROFILE),
        budget={"iterations": 4},
        rehearsal={"step_seconds": 0.0, "failure_rate": 0.0, "train_rows": 512},
    )
    with Daemon(directory) as daemon:
        assert daemon.loop().finished
    return directory


def written(finished: SearchDirectory, folder: Path) -> tuple[Link, ...]:
    chain = links(finished, folder)
    write_chain(chain, finished.record.config, folder)
    return chain


def submitted(folder: Path) -> list[str]:
    done = subprocess.run(["sh", folder / SUBMIT], check=True, capture_output=True, text=True, timeout=300)
    return [line.rpartition(" ")[2] for line in done.stdout.splitlines()]


def ended(slurm: SlurmTestCluster, ids: list[str]) -> list[AccountedJob]:
    """The jobs in the books, in order, once all have ended."""

    def look() -> list[AccountedJob]:
        rows = {row.job_id: row for row in slurm.sacct_rows() if row.ended_at is not None}
        return [rows[job] for job in ids] if rows.keys() >= set(ids) else []

    return slurm.wait_for(look, "the end of the chain")


def test_the_chain_runs_in_order_and_ends_with_the_search_s_own_adapter_and_scores(
    clean_slurm: SlurmTestCluster, finished: SearchDirectory, tmp_path: Path
) -> None:
    folder = tmp_path / "it's a chain"
    chain = written(finished, folder)
    ids = submitted(folder)
    assert len(ids) == len(chain) > 2
    rows = ended(clean_slurm, ids)

    assert {row.state for row in rows} == {"COMPLETED"}
    for before, after in itertools.pairwise(rows):
        assert (before.ended_at or 0.0) <= (after.started_at or 0.0)
    tree = finished.read_tree()
    best = tree.best()
    assert best is not None
    assert best.best is not None
    for part, link in zip(path(tree, best.id, best.best.step), chain, strict=False):
        steps = complete_checkpoints(link.folder.checkpoints)
        assert steps[-1] == part.last_step
        again, first = (
            checkpoint_path(place.checkpoints, part.last_step) / "adapter_model.safetensors"
            for place in (link.folder, finished.phase(part.node.id))
        )
        assert again.read_bytes() == first.read_bytes()
        series = read_series([attempt.metrics for attempt in link.folder.attempts()])
        scores = [point for point in series.points("val_score") if point[0] <= part.last_step]
        own = [(one.step, one.score) for one in part.node.checkpoints if one.step <= part.last_step]
        assert scores == own
    assert tree.evaluation is not None
    assert json.loads(chain[-1].folder.result.read_text())["score"] == tree.evaluation.score


def test_a_chain_that_breaks_leaves_nothing_in_the_queue_and_can_be_submitted_again(
    clean_slurm: SlurmTestCluster, finished: SearchDirectory, tmp_path: Path
) -> None:
    chain = written(finished, tmp_path)
    specification = chain[0].folder.specification
    whole = specification.read_text()
    specification.write_text(whole.replace("failure_rate: 0.0", "failure_rate: 1.0"))
    ids = submitted(tmp_path)
    (first,) = ended(clean_slurm, ids[:1])
    assert first.state == "FAILED"
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")
    assert not any(link.folder.attempts() for link in chain[1:])

    specification.write_text(whole)
    submitted(tmp_path)
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue() and chain[-1].folder.result.exists(), "the score")


def test_a_job_that_is_told_to_leave_is_queued_again_and_goes_on(
    clean_slurm: SlurmTestCluster, finished: SearchDirectory, tmp_path: Path
) -> None:
    """The signal is the one that Slurm sends before the time limit and before a preemption."""
    chain = written(finished, tmp_path)
    first = chain[0].folder
    slow = first.specification.read_text().replace("step_seconds: 0.0", "step_seconds: 0.5")
    first.specification.write_text(slow)
    ids = submitted(tmp_path)
    clean_slurm.wait_for(lambda: complete_checkpoints(first.checkpoints), "a checkpoint")
    clean_slurm.run("scancel", "--signal=USR2", ids[0])
    rows = ended(clean_slurm, ids)

    assert {row.state for row in rows} == {"COMPLETED"}
    assert rows[0].restart == 1
    (attempt,) = first.attempts()
    assert attempt.claimed_runs() == [0, 1]
    adapter = finished.phase(0).checkpoints / f"step_{complete_checkpoints(first.checkpoints)[-1]}"
    name = "adapter_model.safetensors"
    assert (first.checkpoints / adapter.name / name).read_bytes() == (adapter / name).read_bytes()
