"""The phase job inside a real Slurm: several machines, signals, requeues, and machines that Slurm has lost."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cluster_contract import WAITS, ended, log_of, marker_of, nothing_left, request, until
from cluster_options import ClusterOptions
from phase_jobs import until_ray

from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.cluster.claim import read_claim
from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.cluster.slurm import SlurmCluster
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from slurm_cluster import SlurmTestCluster
    from slurm_fixtures import StartSlurm

    from llmzero_hpc.cluster.base import JobRequest
    from llmzero_hpc.search.node import Job

GAINS_IN_ITS_FIRST_RUN = """
import os, pathlib, time
run = os.environ["LLMZERO_RESTART"]
if run == "0":
    pathlib.Path("checkpoints/step_10").mkdir(parents=True)
print("run", run, flush=True)
time.sleep(600)
"""
SAYS_RUN = "import os; print('run', os.environ['LLMZERO_RESTART'], flush=True)\n" + WAITS


@pytest.fixture
def cluster(clean_slurm: SlurmTestCluster, tmp_path: Path) -> SlurmCluster:
    return cluster_in(tmp_path)


def cluster_in(root: Path, **options: object) -> SlurmCluster:
    settings = SlurmClusterConfig(kind="slurm", submit_timeout_seconds=60.0)
    return SlurmCluster(root / "cluster", settings, ClusterProfile.model_validate(options))


def in_run(job: JobRequest, number: int) -> None:
    until(lambda: f"run {number}\n" in log_of(job), f"run {number} of the command")


def runs_of(slurm: SlurmTestCluster, job: Job) -> list[str]:
    """States of the job's runs in the books, first to last."""
    return [row.state for row in slurm.sacct_rows() if row.name == job.name]


def outcome_of(job: JobRequest) -> tuple[int, str] | None:
    marker = marker_of(job)
    return None if marker is None else (marker.restart, marker.outcome)


def with_progress(job: JobRequest) -> JobRequest:
    return replace(job, progress=job.directory / "checkpoints")


def announced(slurm: SlurmTestCluster, job: Job) -> None:
    """The signal that Slurm sends before it ends a job, to all processes of its steps."""
    slurm.run("scancel", "--signal=USR2", job.job_id)


def test_the_head_sees_its_machines_and_nothing_of_slurm(cluster: SlurmCluster, tmp_path: Path) -> None:
    program = (
        "import json, os, subprocess, sys\n"
        "sees = {key: value for key, value in os.environ.items() if key.startswith(('SLURM', 'PMI', 'LLMZERO_'))}\n"
        "print(json.dumps({**sees, 'gpus': os.environ['CUDA_VISIBLE_DEVICES']}))"
    )
    wanted = replace(request(tmp_path, "lz-a-0-1", program), nodes=3, devices=6, gpus=True)
    assert ended(cluster, cluster.submit(wanted)).state is JobState.COMPLETED
    sees = json.loads(log_of(wanted))
    assert {key for key in sees if key.startswith(("SLURM", "PMI"))} == {"SLURM_CONF", "SLURMD_NODENAME"}
    assert sees["LLMZERO_NODES"] == "3"
    assert not sees["LLMZERO_HEAD"].startswith("127.")
    assert sees["gpus"] == "0,1"
    assert outcome_of(wanted) == (0, "completed")
    assert not list(wanted.directory.glob("rank-*"))


def test_at_its_time_limit_a_job_goes_on_as_long_as_each_run_gains_a_checkpoint(
    cluster: SlurmCluster, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    wanted = with_progress(request(tmp_path, "lz-a-0-1", GAINS_IN_ITS_FIRST_RUN, time_limit_seconds=60.0))
    job = cluster.submit(wanted)
    in_run(wanted, 0)
    announced(clean_slurm, job)
    in_run(wanted, 1)
    assert marker_of(wanted) is None
    announced(clean_slurm, job)
    assert ended(cluster, job).restarts == 1
    assert outcome_of(wanted) == (1, "time_limit")
    until(lambda: runs_of(clean_slurm, job) == ["REQUEUED", "FAILED"], "the books")
    nothing_left(tmp_path)


def test_a_preempted_job_runs_again_whatever_it_gained(
    cluster: SlurmCluster, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    wanted = with_progress(replace(request(tmp_path, "lz-a-0-1", SAYS_RUN), nodes=4))
    job = cluster.submit(wanted)
    in_run(wanted, 0)
    clean_slurm.run("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=:")
    in_run(wanted, 1)
    assert marker_of(wanted) is None
    assert cluster.observe([job])[job.name].restarts == 1
    cluster.cancel(job)
    assert ended(cluster, job).state is JobState.CANCELLED
    assert outcome_of(wanted) == (1, "terminated")
    nothing_left(tmp_path)


def test_a_job_preempted_without_a_signal_of_its_own_runs_again(
    start_slurm: StartSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = start_slurm(ClusterOptions(accounting=False, preempt_user_signal=False, grace=0))
    for key, value in slurm.environment.items():
        monkeypatch.setenv(key, value)
    cluster = cluster_in(tmp_path)
    wanted = replace(request(tmp_path, "lz-a-0-1", SAYS_RUN), nodes=4)
    job = cluster.submit(wanted)
    in_run(wanted, 0)
    slurm.run("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=:")
    in_run(wanted, 1)
    cluster.cancel(job)
    ended(cluster, job)
    assert outcome_of(wanted) == (1, "terminated")


def test_where_requeues_are_forbidden_the_job_ends_with_its_marker(
    cluster: SlurmCluster, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAYS_RUN, time_limit_seconds=3600.0)
    job = cluster.submit(wanted)
    in_run(wanted, 0)
    clean_slurm.run("scontrol", "update", f"JobId={job.job_id}", "Requeue=0")
    announced(clean_slurm, job)
    assert not ended(cluster, job).state.is_live
    assert outcome_of(wanted) == (0, "terminated")
    assert "not queued again" in log_of(wanted)


def test_a_requeue_out_of_the_blue_is_a_new_run(
    cluster: SlurmCluster, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    wanted = replace(request(tmp_path, "lz-a-0-1", SAYS_RUN), nodes=2)
    job = cluster.submit(wanted)
    in_run(wanted, 0)
    clean_slurm.run("scontrol", "requeue", job.job_id)
    in_run(wanted, 1)
    attempt = AttemptDirectory(wanted.directory)
    until(lambda: attempt.present(1, 1).exists(), "the second machine")
    cluster.cancel(job)
    ended(cluster, job)
    assert attempt.claimed_runs() == [0, 1]
    assert outcome_of(wanted) == (1, "terminated")


def test_a_run_on_a_machine_that_lost_slurm_ends_when_the_next_one_begins(
    cluster: SlurmCluster, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAYS_RUN)
    job = cluster.submit(wanted)
    in_run(wanted, 0)
    claim = read_claim(AttemptDirectory(wanted.directory))
    assert claim is not None
    (node,) = {row.nodes for row in clean_slurm.jobs_in_queue()}
    clean_slurm.kill_node(node)
    in_run(wanted, 1)
    until(lambda: not clean_slurm.job_processes(node), "the end of what ran on the lost machine")
    assert marker_of(wanted) is None
    assert cluster.observe([job])[job.name].state is JobState.RUNNING
    cluster.cancel(job)
    ended(cluster, job)
    assert outcome_of(wanted) == (1, "terminated")
    nothing_left(tmp_path)


def test_a_head_that_is_killed_takes_its_command_and_its_machines_along(cluster: SlurmCluster, tmp_path: Path) -> None:
    wanted = replace(request(tmp_path, "lz-a-0-1", SAYS_RUN), nodes=2)
    job = cluster.submit(wanted)
    in_run(wanted, 0)
    claim = read_claim(AttemptDirectory(wanted.directory))
    assert claim is not None
    os.kill(int(claim.pid), signal.SIGKILL)
    assert ended(cluster, job).state is JobState.FAILED
    nothing_left(tmp_path)
    assert marker_of(wanted) is None


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_runs_on_all_machines_of_a_job_and_ends_with_it(
    clean_slurm: SlurmTestCluster, tmp_path: Path, short: Path
) -> None:
    cluster = cluster_in(tmp_path, environment={"TMPDIR": str(short)})
    program = (
        "import os, ray, time; ray.init(log_to_driver=False)\n"
        "print('run', len(ray.nodes()), ray.cluster_resources()['GPU'], flush=True)\n"
        "time.sleep(600)"
    )
    job = request(tmp_path, "lz-a-0-1", program, environment={"LLMZERO_RAY_CPUS": "1"})
    wanted = replace(job, plan=replace(job.plan, ray=True), nodes=2, devices=4, gpus=True)
    job_of_slurm = cluster.submit(wanted)
    until_ray(lambda: "run" in log_of(wanted), AttemptDirectory(wanted.directory).ray_log(0))
    assert "run 2 4.0" in log_of(wanted)
    cluster.cancel(job_of_slurm)
    assert ended(cluster, job_of_slurm).state is JobState.CANCELLED
    assert outcome_of(wanted) == (0, "terminated")
    until(lambda: not clean_slurm.job_processes("node1") + clean_slurm.job_processes("node2"), "the end of Ray")
    assert not AttemptDirectory(wanted.directory).ray_token().exists()
