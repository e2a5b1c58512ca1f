"""The Slurm cluster, with a real Slurm: the contract of all clusters, and what only Slurm has."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cluster_contract import (
    SHOWS_KEYS,
    WAITS,
    ClusterContract,
    cancelled,
    ended,
    log_of,
    marker_of,
    request,
    running,
    until,
)
from cluster_options import ClusterOptions

from llmzero_hpc.cluster.base import Charge, JobState
from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.cluster.slurm import SlurmCluster
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.search.node import Job
from llmzero_hpc.sections import SlurmClusterConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from slurm_cluster import AccountedJob, SlurmTestCluster
    from slurm_fixtures import StartSlurm

    from llmzero_hpc.cluster.base import Cluster, JobObservation, JobRequest

    MakeSlurm = Callable[..., SlurmCluster]


@pytest.fixture
def make(clean_slurm: SlurmTestCluster, tmp_path: Path) -> MakeSlurm:
    return maker(tmp_path)


def maker(root: Path) -> MakeSlurm:
    settings = SlurmClusterConfig(kind="slurm", submit_timeout_seconds=60.0)
    return lambda **options: SlurmCluster(root / "cluster", settings, ClusterProfile(**options))


class TestSlurmCluster(ClusterContract):
    shortest_limit_seconds = 60.0
    # To Slurm, a phase job that leaves before the limit is one that exits with an error.
    states_at_the_limit = frozenset({JobState.TIME_LIMIT, JobState.FAILED})

    @pytest.fixture
    def make(self, clean_slurm: SlurmTestCluster, tmp_path: Path) -> MakeSlurm:
        return maker(tmp_path)

    @pytest.mark.slow
    def test_the_time_limit_ends_a_job(self, cluster: Cluster, tmp_path: Path) -> None:
        super().test_the_time_limit_ends_a_job(cluster, tmp_path)


def test_secrets_of_the_controller_are_kept_from_jobs(
    clean_slurm: SlurmTestCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "hidden")
    monkeypatch.setenv("NO_KEY", "plain")
    settings = SlurmClusterConfig(kind="slurm", submit_timeout_seconds=60.0)
    cluster = SlurmCluster(tmp_path / "cluster", settings, ClusterProfile(), secrets={"A_KEY"})
    wanted = request(tmp_path, "lz-a-0-1", SHOWS_KEYS)
    ended(cluster, cluster.submit(wanted))
    assert log_of(wanted).split() == ["None", "plain"]


def on_gpus(job: JobRequest, count: int) -> JobRequest:
    return replace(job, devices=count, gpus=True)


def rows_of(slurm: SlurmTestCluster, job: Job) -> list[AccountedJob]:
    return [row for row in slurm.sacct_rows() if row.name == job.name]


def charged(cluster: SlurmCluster, job: Job) -> Charge:
    """The final charge of a job that has ended."""
    last: list[Charge] = []

    def is_final() -> bool:
        seen = cluster.observe([job]).get(job.name)
        last[:] = [seen.charge] if seen is not None and seen.charge is not None and seen.charge.final else []
        return bool(last)

    until(is_final, f"the books of {job.name}")
    return last[0]


def test_the_charge_is_what_sacct_says_of_all_runs_to_the_second(
    make: MakeSlurm, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    cluster = make(partition="low", gpu_type="a100")
    job = cluster.submit(on_gpus(request(tmp_path, "lz-a-0-1", WAITS), 3))
    running(cluster, job)
    until(lambda: any(row.elapsed_seconds >= 2 for row in rows_of(clean_slurm, job)), "two seconds")
    clean_slurm.run("scontrol", "requeue", job.job_id)
    seen: list[JobObservation] = []

    def runs_again() -> bool:
        seen[:] = [cluster.observe([job])[job.name]]
        return (seen[0].reason, seen[0].restarts, seen[0].state) == ("", 1, JobState.RUNNING)

    until(runs_again, "the second run")
    assert seen[0].charge is not None
    assert not seen[0].charge.final
    assert seen[0].hosts.startswith("node")
    cancelled(cluster, job)
    charge = charged(cluster, job)
    rows = rows_of(clean_slurm, job)
    assert len(rows) == 2
    assert charge.device_seconds == sum(row.elapsed_seconds for row in rows) * 3
    assert charge.device_seconds > 0
    asked = cluster.calls["sacct"]
    assert cluster.observe([job])[job.name].charge == charge
    assert cluster.calls["sacct"] == asked


def test_a_job_cancelled_while_it_is_queued_again_has_a_final_charge(
    make: MakeSlurm, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    cluster = make()
    for number in range(2):
        job = cluster.submit(request(tmp_path, f"lz-a-{number}-1", WAITS))
        running(cluster, job)
        clean_slurm.run("scontrol", "requeue", job.job_id)
        cancelled(cluster, job)
        charge = charged(cluster, job)
        assert charge.device_seconds == sum(row.elapsed_seconds for row in rows_of(clean_slurm, job))


@pytest.mark.timeout(1800)
def test_two_hundred_jobs_are_one_squeue_and_one_sacct(
    make: MakeSlurm, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    jobs = []
    for number in range(200):
        name = f"{tmp_path.name}-lz-a-{number}-1"
        waits = ["--hold"] if number % 2 else []
        job_id = clean_slurm.run("sbatch", "--parsable", *waits, "--output=/dev/null", f"--job-name={name}", "--wrap=:")
        jobs.append(Job(job_id.strip(), name, time.time()))
    until(lambda: len(clean_slurm.jobs_in_queue()) == 100, "the end of a hundred jobs")
    cluster = make()
    seen = cluster.observe(jobs)
    assert cluster.calls == {"squeue": 1, "sacct": 1}
    assert [seen[job.name].state for job in jobs] == [JobState.COMPLETED, JobState.PENDING] * 100
    assert {seen[job.name].reason for job in jobs[1::2]} == {"JobHeldUser"}
    clean_slurm.run("scancel", "--state=PENDING", "--partition=low")


def test_the_job_of_a_copied_search_is_left_alone_and_a_late_one_of_its_own_is_not(
    make: MakeSlurm, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    cluster = make()
    job = cluster.submit(request(tmp_path, "lz-a-0-1", WAITS))
    (tmp_path / "phases" / "late").mkdir()
    ids = []
    for place in (tmp_path / "phases" / "late", tmp_path.parent):
        hold = ("--hold", "--output=/dev/null", f"--job-name={job.name}", f"--chdir={place}", "--wrap=:")
        ids.append(clean_slurm.run("sbatch", "--parsable", *hold).strip())
    running(cluster, job)
    until(lambda: {one.job_id for one in clean_slurm.jobs_in_queue()} == {job.job_id, ids[1]}, "the late job's end")
    cancelled(cluster, job)


def test_a_refusal_is_told_in_slurms_words_and_leaves_the_name_free(make: MakeSlurm, tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", "open('runs', 'a').write('x')")
    with pytest.raises(ClusterError, match=r"^Slurm refused .*: .*Invalid partition name specified$"):
        make(partition="nowhere").submit(wanted)
    assert make().find(wanted.name, wanted.directory) is None
    cluster = make()
    assert ended(cluster, cluster.submit(wanted)).state is JobState.COMPLETED
    assert (wanted.directory / "runs").read_text() == "x"


def test_a_preview_is_the_very_script_and_submits_nothing(
    make: MakeSlurm, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    cluster, wanted = make(), request(tmp_path, "lz-a-0-1", WAITS)
    preview = cluster.preview(wanted)
    assert f"--job-name={wanted.name}" in preview.script
    assert preview.estimate.endswith("on node1 of partition low")
    assert not clean_slurm.jobs_in_queue()
    assert cluster.find(wanted.name, wanted.directory) is None
    job = cluster.submit(wanted)
    (script,) = wanted.directory.rglob(f"{job.job_id}_submission.sh")
    assert script.read_text() == preview.script
    cancelled(cluster, job)


def test_a_preview_of_what_slurm_would_refuse_says_why(make: MakeSlurm, tmp_path: Path) -> None:
    wanted = on_gpus(request(tmp_path, "lz-a-0-1", WAITS), 9)
    with pytest.raises(ClusterError, match="Requested node configuration is not available"):
        make().preview(wanted)
    with pytest.raises(ClusterError, match="would refuse"):
        make(partition="nowhere").preview(request(tmp_path, "lz-a-0-1", WAITS))


def test_a_job_on_two_machines_ends_on_both(make: MakeSlurm, tmp_path: Path) -> None:
    cluster = make()
    wanted = replace(request(tmp_path, "lz-a-0-1", "print('up', flush=True)\n" + WAITS), nodes=2)
    job = cluster.submit(wanted)
    until(lambda: "up" in log_of(wanted), "the command")
    assert cluster.observe([job])[job.name].hosts == "node[1-2]"
    cancelled(cluster, job)
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "terminated"


def test_while_the_accounting_is_down_jobs_end_all_the_same_and_are_charged_later(
    make: MakeSlurm, clean_slurm: SlurmTestCluster, tmp_path: Path
) -> None:
    clean_slurm.stop("dbd", signal.SIGKILL)
    cluster = make()
    job = cluster.submit(request(tmp_path, "lz-a-0-1", ""))
    seen = ended(cluster, job)
    assert (seen.state, seen.charge) == (JobState.COMPLETED, None)
    assert cluster.keeps_accounts
    assert cluster.calls["sacct"] == 1
    clean_slurm.start("dbd")
    assert charged(make(), job).final


def test_a_launcher_that_cannot_start_is_told_and_leaves_the_name_free(
    make: MakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken" / "submitit").mkdir(parents=True)
    (tmp_path / "broken" / "submitit" / "__init__.py").write_text("raise ImportError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    wanted = request(tmp_path, "lz-a-0-1", "")
    with pytest.raises(ClusterError, match="cannot be submitted: ImportError: half installed"):
        make().submit(wanted)
    assert make().find(wanted.name, wanted.directory) is None


def test_without_accounting_squeue_alone_is_believed(
    start_slurm: StartSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # long enough to be seen ended, however slow squeue is
    slurm = start_slurm(ClusterOptions(accounting=False, min_job_age=30))
    for key, value in slurm.environment.items():
        monkeypatch.setenv(key, value)
    cluster = maker(tmp_path)()
    job = cluster.submit(request(tmp_path, "lz-a-0-1", ""))
    assert ended(cluster, job).state is JobState.COMPLETED
    assert not cluster.keeps_accounts
    until(lambda: not slurm.run("squeue", "-h", "-t", "all"), "Slurm to forget the job")
    seen = cluster.observe([job])
    assert (seen[job.name].state, seen[job.name].charge) == (JobState.COMPLETED, None)
    assert cluster.calls["sacct"] == 1
    assert maker(tmp_path)().observe([job]) == {}


def test_an_id_that_slurm_uses_again_is_another_job(
    start_slurm: StartSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = start_slurm(ClusterOptions())
    for key, value in slurm.environment.items():
        monkeypatch.setenv(key, value)
    cluster = maker(tmp_path)()
    first = cluster.submit(request(tmp_path, "lz-a-0-1", ""))
    assert ended(cluster, first).state is JobState.COMPLETED
    charged(cluster, first)
    slurm.stop("ctld")
    for file in (slurm.root / "state").iterdir():
        if file.is_file() and file.name.startswith(("job_state", "last_")):
            file.unlink()
    slurm.start("ctld")
    second = cluster.submit(request(tmp_path, "lz-a-0-2", WAITS))
    assert second.job_id == first.job_id
    for witness in (cluster, maker(tmp_path)()):
        running(witness, second)
        witness.cancel(first)
        seen = witness.observe([first, second])
        assert [seen[job.name].state for job in (first, second)] == [JobState.COMPLETED, JobState.RUNNING]
    cancelled(cluster, second)
