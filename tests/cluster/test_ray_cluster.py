"""Ray on the machines of a job: real clusters of two processes each, side by side on this machine."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import psutil
import pytest
from cluster_contract import log_of, marker_of, request, until
from phase_jobs import RAY_SECONDS, started, until_ray

from llmzero_hpc import shipped
from llmzero_hpc.cluster.processes import JOB_VARIABLE, job_folder
from llmzero_hpc.cluster.ray_cluster import write_ray_scripts
from llmzero_hpc.store.atomic import write_bytes
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmzero_hpc.cluster.base import JobRequest

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

TRAINS = """
import os, pathlib, ray, time
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

@ray.remote(num_cpus=1)
def work():
    return ray.get_runtime_context().get_node_id(), os.environ["OF_THE_PLAN"], os.environ["LLMZERO_NODES"]

def alive():
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]

def everywhere():
    return ray.get([work.options(scheduling_strategy=On(node, soft=False)).remote() for node in alive()])

ray.init(log_to_driver=False)
places, *seen = zip(*everywhere())
print("nodes", len(set(places)), *map(set, seen), flush=True)
while not pathlib.Path("go").exists():
    if len(alive()) == 1:
        print("lost a machine", flush=True)
        raise SystemExit(4)
    time.sleep(.05)
print("again", len(everywhere()), flush=True)
raise SystemExit(int(pathlib.Path("go").read_text()))
"""
NOTICES_SOON = {
    f"RAY_health_check_{key}": value
    for key, value in {"initial_delay_ms": "0", "period_ms": "300", "failure_threshold": "2"}.items()
}


class RayJob:
    """A job on two machines that uses Ray."""

    def __init__(self, root: Path, name: str, short: Path, own: Path | None = None, **more: str) -> None:
        plan = {"OF_THE_PLAN": "yes", "LLMZERO_RAY_CPUS": "1", **more}
        self.wanted: JobRequest = request(root, name, TRAINS, environment=plan)
        self.attempt = AttemptDirectory(self.wanted.directory)
        fields = {
            "nodes": 2,
            "ray_scripts": write_ray_scripts(self.attempt.submission, 2, own),
            "ray_join_seconds": RAY_SECONDS,
        }
        self.ranks = [
            started(self.wanted, fields, SLURM_PROCID=str(rank), SLURM_JOB_ID=name, TMPDIR=str(short))
            for rank in (0, 1)
        ]

    def up(self) -> None:
        until_ray(lambda: "nodes 2" in log_of(self.wanted) or self.ranks[0].poll() is not None, self.attempt.ray_log(0))
        assert self.ranks[0].poll() is None, log_of(self.wanted)

    def go(self, exit_code: int) -> list[int]:
        write_bytes(self.wanted.directory / "go", str(exit_code).encode())
        return self.codes()

    def codes(self) -> list[int]:
        return [rank.wait() for rank in self.ranks]

    def processes(self) -> list[psutil.Process]:
        """What lives of it, found by the environment, and below that by parentage."""
        folder = job_folder(self.wanted.directory, self.wanted.name)
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(JOB_VARIABLE) == folder:
                    found += [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
        return found


def is_alive(process: psutil.Process) -> bool:
    """A zombie is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[list[RayJob]]:
    made: list[RayJob] = []
    yield made
    for job in made:
        for rank in job.ranks:
            rank.kill()
            rank.wait()
        for process in job.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_two_jobs_share_a_machine_and_the_end_of_one_leaves_the_other_alone(
    tmp_path: Path, short: Path, jobs: list[RayJob]
) -> None:
    jobs += [RayJob(tmp_path, "lz-a-0-1", short), RayJob(tmp_path, "lz-b-0-1", short)]
    first, second = jobs
    for job in jobs:
        job.up()
        assert "nodes 2 {'yes'} {'2'}" in log_of(job.wanted)
    secrets = [job.attempt.ray_token().read_text() for job in jobs]
    assert secrets[0] != secrets[1]
    assert {stat.S_IMODE(job.attempt.ray_token().stat().st_mode) for job in jobs} == {0o600}
    processes, folders = first.processes(), set(short.glob("lz-*"))
    assert len(folders) == 4
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    for rank in first.ranks:
        rank.terminate()
    assert first.codes()[1] == 0
    # Ray's own processes end a moment after those that started them.
    until(lambda: first.processes() == [] and not any(map(is_alive, processes)), "the end of its Ray")
    assert len(set(short.glob("lz-*"))) == 2
    assert second.go(5) == [5, 0]
    assert "again 2" in log_of(second.wanted)
    # No machine was lost: this error is the command's own.
    assert [marker and marker.outcome for marker in map(marker_of, (first.wanted, second.wanted))] == [
        "terminated",
        "error",
    ]
    until(lambda: second.processes() == [], "the end of its Ray")
    assert not set(short.glob("lz-*"))
    for job in jobs:
        assert not job.attempt.ray_token().exists()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in secrets), path


def test_the_trainer_sees_that_a_machine_is_lost_and_nothing_outlives_the_job(
    tmp_path: Path, short: Path, jobs: list[RayJob]
) -> None:
    jobs.append(RayJob(tmp_path, "lz-a-0-1", short, **NOTICES_SOON))
    (job,) = jobs
    job.up()
    job.ranks[1].kill()
    assert job.ranks[0].wait() == 4
    assert "lost a machine" in log_of(job.wanted)
    until(lambda: job.processes() == [] and not set(short.glob("lz-*")), "the end of what the lost machine had")
    marker = marker_of(job.wanted)
    assert marker is not None
    # Not the strategy's failure.
    assert (marker.exit_code, marker.outcome) == (4, "infrastructure_error")
    assert "a machine was lost: Ray has 1 of 2" in log_of(job.wanted)


def test_a_ray_that_fails_to_join_at_first_is_started_again(tmp_path: Path, short: Path, jobs: list[RayJob]) -> None:
    own, failed = tmp_path / "own", tmp_path / "failed"
    own.mkdir()
    script = (shipped.folder("slurm_templates") / "ray_worker.sh").read_text()
    (own / "ray_worker.sh").write_text(f"[ -e {failed} ] || {{ touch {failed}; exit 1; }}\n{script}")
    jobs.append(RayJob(tmp_path, "lz-a-0-1", short, own))
    (job,) = jobs
    job.up()
    assert failed.exists()


def test_a_machine_that_does_not_join_is_told_in_one_line(tmp_path: Path, short: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", TRAINS, environment={"LLMZERO_RAY_CPUS": "1"})
    submission = AttemptDirectory(wanted.directory).submission
    fields = {"nodes": 2, "ray_scripts": write_ray_scripts(submission, 2), "ray_join_seconds": 1.0}
    alone = started(wanted, fields, SLURM_PROCID="0", TMPDIR=str(short))
    assert alone.wait() == os.EX_UNAVAILABLE
    assert "[phase job] ended: Ray has 1 of 2 machines after 1 seconds: " in log_of(wanted)
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "infrastructure_error"
    assert not list(short.glob("lz-*"))


def test_a_ray_that_does_not_start_is_told_with_its_last_word(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "ray_head.sh").write_text("echo no licence for this; exit 3")
    wanted = request(tmp_path, "lz-a-0-1", TRAINS)
    scripts = write_ray_scripts(AttemptDirectory(wanted.directory).submission, 1, own)
    assert started(wanted, {"ray_scripts": scripts}).wait() == os.EX_UNAVAILABLE
    assert "no licence for this" in log_of(wanted)
