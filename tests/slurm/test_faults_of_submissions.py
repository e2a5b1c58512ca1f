"""What can go wrong between the controller and sbatch: no job is lost, none doubled, and the tree is the same."""

from __future__ import annotations

import random
import shutil
import stat
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from dying_controller import PATIENCE_SECONDS, count_steps, finish, start
from searches import CPU_PROFILE, decisions, on_slurm, rehearsal

from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from slurm_cluster import AccountedJob, SlurmTestCluster

    from llmzero_hpc.search.tree import Tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = 50
FAILURES = 5


def search(root: Path, folder: Path, iterations: int, *, local: bool = False) -> SearchDirectory:
    """A short search on the cluster; with `local`, the same one on this machine."""
    settings: dict[str, Any] = {
        "budget": {"iterations": iterations},
        "configuration": {"batch_size": 64, "epochs": 2.0},
        "bounds": {"epochs": {"low": 1, "high": 2}},
        "rehearsal": {"step_seconds": 0.01, "failure_rate": 0.2, "train_rows": 512},
        "tick_seconds": 0.2,
    }
    cluster = (
        {"kind": "local", "grace_seconds": 5} if local else on_slurm(folder, CPU_PROFILE, submit_timeout_seconds=12)
    )
    return rehearsal(root, cluster, **settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Five phases and the test score, without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    directory = search(folder / "search", folder, 5, local=True)
    finish(directory.root)
    return directory.read_tree()


def assert_same(slurm: SlurmTestCluster, root: Path, expected: Tree) -> None:
    """The tree of the undisturbed search; each attempt is one job that ran once; none is left."""
    directory = SearchDirectory.open(root)
    tree = directory.read_tree()
    assert decisions(tree) == decisions(expected)
    assert tree.evaluation is not None
    attempts = [attempt for node in tree for attempt in node.attempts] + list(tree.evaluation.attempts)
    assert {attempt.number for attempt in attempts} == {1}, "no attempt was lost or repeated"
    slurm.wait_for(lambda: not slurm.jobs_in_queue(), "an empty queue")
    rows = slurm.wait_for(lambda: _ended(slurm, directory, len(attempts)), "the books")
    assert Counter((row.name, row.job_id) for row in rows) == Counter(
        (attempt.name, attempt.job.job_id) for attempt in attempts if attempt.job
    )


def booked(slurm: SlurmTestCluster, directory: SearchDirectory) -> list[AccountedJob]:
    """The jobs of a search, as far as the books have them by now."""
    return [row for row in slurm.sacct_rows() if f"-{directory.record.token}-" in row.name]


def _ended(slurm: SlurmTestCluster, directory: SearchDirectory, least: int) -> list[AccountedJob]:
    rows = booked(slurm, directory)
    return rows if len(rows) >= least and all(row.ended_at for row in rows) else []


def sbatch_that(folder: Path, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an sbatch of our own before the real one; `$n` counts its calls, `$real` is the real one."""
    place = folder / "bin"
    place.mkdir()
    text = f"""\
    #!/bin/bash
    real={shutil.which("sbatch")}
    n=$(($(cat {place}/calls 2>/dev/null || echo 0) + 1)); echo "$n" > {place}/calls
    """
    script = place / "sbatch"
    script.write_text(textwrap.dedent(text) + shell)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(place), prepend=":")


def test_sbatch_times_out_although_slurm_accepted(
    clean_slurm: SlurmTestCluster, tmp_path: Path, undisturbed: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch_that(
        tmp_path,
        'if [ $((n % 3)) = 1 ]; then "$real" "$@" >/dev/null; exec sleep 60; fi; exec "$real" "$@"\n',
        monkeypatch,
    )
    directory = search(tmp_path / "search", tmp_path, 5)
    finish(directory.root)
    assert_same(clean_slurm, directory.root, undisturbed)


def test_sbatch_fails_five_times(
    clean_slurm: SlurmTestCluster, tmp_path: Path, undisturbed: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaint = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    sbatch_that(
        tmp_path, f'if [ $n -le {FAILURES} ]; then echo "{complaint}" >&2; exit 1; fi; exec "$real" "$@"\n', monkeypatch
    )
    directory = search(tmp_path / "search", tmp_path, 5)
    finish(directory.root)
    assert int((tmp_path / "bin" / "calls").read_text()) == FAILURES + len(undisturbed) + 1
    assert_same(clean_slurm, directory.root, undisturbed)


def test_fifty_kills_of_the_controller_at_random_moments(
    clean_slurm: SlurmTestCluster, tmp_path: Path, undisturbed: Tree
) -> None:
    draw = random.Random(3)
    kills, searches = 0, 0
    while kills < KILLS:
        directory = search(tmp_path / f"search-{searches}", tmp_path, 5)
        searches += 1
        while kills < KILLS:
            process = start(directory.root)
            process.join(draw.uniform(0.0, 1.5))
            if process.exitcode == 0:
                break
            process.kill()
            process.join()
            kills += 1
        finish(directory.root)
        assert_same(clean_slurm, directory.root, undisturbed)


def test_a_kill_at_each_durable_step_of_a_submission(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    whole = search(tmp_path / "whole", tmp_path, 1)
    steps = count_steps(whole.root)
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")
    roots = []
    for kill_at in range(1, steps + 1):
        directory = search(tmp_path / f"step-{kill_at}", tmp_path, 1)
        process = start(directory.root, kill_at)
        process.join(PATIENCE_SECONDS)
        assert process.exitcode is not None
        roots.append(directory.root)
        tree = directory.read_tree()
        if len(tree) and tree[0].attempt and tree[0].attempt.job:
            break  # what comes after is no part of the submission
    assert len(roots) > 8
    for process in [start(root) for root in roots]:
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0
    for root in roots:
        assert decisions(SearchDirectory.open(root).read_tree()) == decisions(whole.read_tree())
    for directory in map(SearchDirectory.open, roots):
        # the phase and the test score
        rows = clean_slurm.wait_for(lambda: _ended(clean_slurm, directory, 2), "the books")  # noqa: B023 - asked at once
        assert len({row.name for row in rows}) == len(rows) == 2
