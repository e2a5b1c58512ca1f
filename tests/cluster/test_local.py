"""The local cluster, with real processes that are really killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from cluster_contract import (
    SHOWS_KEYS,
    WAITS,
    ClusterContract,
    cancelled,
    ended,
    log_of,
    marker_of,
    nothing_left,
    processes_in,
    request,
    running,
    state_of,
    until,
)

from llmzero_hpc.cluster.base import JobRequest, JobState
from llmzero_hpc.cluster.gpus import visible_gpus
from llmzero_hpc.cluster.local import LocalCluster
from llmzero_hpc.cluster.local_submit import take_ticket
from llmzero_hpc.cluster.processes import stands_in
from llmzero_hpc.cluster.registry import make_cluster
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.sections import ChainsTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
CONTROLLER = """
import sys
from pathlib import Path
sys.path[:0] = {tests!r}
from cluster_contract import request
from llmzero_hpc.cluster.local import LocalCluster
root = Path({root!r})
wanted = request(root, "lz-a-0-1", {program!r})
cluster = LocalCluster(root / "cluster", 1.0)
print("ready", flush=True)
cluster.submit(wanted)
print("submitted", flush=True)
sys.stdin.read()
"""
COUNTS_RUNS = "open('runs', 'a').write('x')"


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    try:
        nothing_left(tmp_path)
    finally:
        for process in processes_in(tmp_path):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def controller(root: Path, program: str) -> subprocess.Popen[str]:
    """A process that submits one job when it has said "ready", in a process group of its own."""
    code = CONTROLLER.format(tests=[str(HERE), str(HERE.parent)], root=str(root), program=program)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def process_with(root: Path, part: str) -> psutil.Process:
    (found,) = [process for process in processes_in(root) if part in " ".join(process.cmdline())]
    return found


class TestLocalCluster(ClusterContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], LocalCluster]:
        return lambda: LocalCluster(tmp_path / "cluster", grace_seconds=5.0)

    def test_secrets_of_the_controller_are_kept_from_jobs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("A_KEY", "hidden")
        monkeypatch.setenv("NO_KEY", "plain")
        wanted = request(tmp_path, "lz-a-0-1", SHOWS_KEYS)
        cluster = LocalCluster(tmp_path / "cluster", secrets={"A_KEY"})
        ended(cluster, cluster.submit(wanted))
        assert log_of(wanted).split() == ["None", "plain"]

    @pytest.mark.parametrize(
        "trace", ["phases", "request-1.json", "launcher.log", "request-1.ticket", "*_submitted.pkl", "claim", "runs"]
    )
    def test_a_controller_killed_while_it_submits_leaves_one_job_or_none(
        self, make: Callable[[], LocalCluster], tmp_path: Path, trace: str
    ) -> None:
        killed = controller(tmp_path, COUNTS_RUNS)
        while not any(tmp_path.rglob(trace)):
            # no pause: what is waited for is a moment
            assert killed.poll() is None
        killed.kill()
        killed.communicate()
        wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
        job = make().find(wanted.name, wanted.directory)
        # From the ticket on, it is a job.
        assert (job is not None) or trace in {"phases", "request-1.json", "launcher.log"}
        until(lambda: not processes_in(tmp_path), "the last process")
        runs = wanted.directory / "runs"
        if job is None:
            # Certainly not submitted: nothing has run, and trying again is right.
            assert not runs.exists()
            job = make().submit(wanted)
        assert make().find(wanted.name, wanted.directory) == job
        assert ended(make(), job).state is JobState.COMPLETED
        assert runs.read_text() == "x"

    def test_a_launcher_that_comes_too_late_submits_nothing(
        self, make: Callable[[], LocalCluster], tmp_path: Path
    ) -> None:
        wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
        cluster = make()
        request_file = cluster._write_request(wanted, wanted.directory / "submission" / wanted.name)
        assert make().find(wanted.name, wanted.directory) is None
        assert cluster._launch(request_file).wait() == 1
        assert not (wanted.directory / "runs").exists()
        job = make().submit(wanted)
        assert ended(make(), job).state is JobState.COMPLETED
        assert (wanted.directory / "runs").read_text() == "x"

    def test_a_launcher_that_fails_is_told_in_one_line(
        self, make: Callable[[], LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
        broken = tmp_path / "broken"
        (broken / "submitit" / "local").mkdir(parents=True)
        (broken / "submitit" / "__init__.py").touch()
        (broken / "submitit" / "local" / "__init__.py").touch()
        failing = "class LocalExecutor:\n def __init__(self, folder): pass\n def update_parameters(self, **_): pass\n"
        failing += " def submit(self, job): raise OSError('no process left')\n"
        (broken / "submitit" / "local" / "local.py").write_text(failing)
        monkeypatch.setenv("PYTHONPATH", str(broken))
        with pytest.raises(ClusterError, match="no process left"):
            make().submit(wanted)
        assert make().find(wanted.name, wanted.directory) is None

    def test_an_accepted_job_whose_launcher_died_is_found_and_then_unknown(
        self, make: Callable[[], LocalCluster], tmp_path: Path
    ) -> None:
        wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
        cluster = make()
        request_file = cluster._write_request(wanted, wanted.directory / "submission" / wanted.name)
        take_ticket(request_file.with_suffix(".ticket"), accept=True)
        job = make().find(wanted.name, wanted.directory)
        assert job is not None
        assert make().observe([job]) == {}

    def test_ctrl_c_reaches_the_controller_and_not_its_jobs(
        self, make: Callable[[], LocalCluster], tmp_path: Path
    ) -> None:
        interrupted = controller(tmp_path, WAITS)
        wanted = request(tmp_path, "lz-a-0-1", WAITS)
        assert interrupted.stdout is not None
        assert interrupted.stdout.readline() == "submitted\n"
        job = make().find(wanted.name, wanted.directory)
        assert job is not None
        running(make(), job)
        os.killpg(interrupted.pid, signal.SIGINT)
        interrupted.communicate()
        for process in processes_in(tmp_path):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)  # more than a terminal would do
        ((name, seen),) = make().observe([job]).items()
        assert (name, seen.state) == (job.name, JobState.RUNNING)
        cancelled(make(), job)

    def test_nothing_of_a_job_hangs_on_the_controller(self, make: Callable[[], LocalCluster], tmp_path: Path) -> None:
        before = set(psutil.Process().children())
        job = make().submit(request(tmp_path, "lz-a-0-1", ""))
        assert set(psutil.Process().children()) <= before
        ended(make(), job)

    def test_the_job_goes_on_without_submitits_process(self, make: Callable[[], LocalCluster], tmp_path: Path) -> None:
        wanted = request(
            tmp_path, "lz-a-0-1", "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(.02)"
        )
        job = make().submit(wanted)
        running(make(), job)
        process_with(tmp_path, "submitit.local._local").kill()
        assert state_of(make(), job) is JobState.RUNNING
        (wanted.directory / "go").touch()
        assert ended(make(), job).state is JobState.COMPLETED

    def test_a_trainer_without_its_phase_job_is_seen_and_can_be_cancelled(
        self, make: Callable[[], LocalCluster], tmp_path: Path
    ) -> None:
        wanted = request(tmp_path, "lz-a-0-1", "print('up')\n" + WAITS)
        job = make().submit(wanted)
        until(lambda: "up" in log_of(wanted), "the trainer")
        process_with(tmp_path, "submitit.core._submit").kill()
        until(lambda: len(processes_in(tmp_path)) == 1, "submitit's end")
        assert state_of(make(), job) is JobState.RUNNING
        cancelled(make(), job)
        nothing_left(tmp_path)
        assert make().observe([job]) == {}

    def test_a_trainer_killed_from_outside_did_not_fail(self, make: Callable[[], LocalCluster], tmp_path: Path) -> None:
        wanted = request(tmp_path, "lz-a-0-1", "print('up')\n" + WAITS)
        job = make().submit(wanted)
        until(lambda: "up" in log_of(wanted), "the trainer")
        process_with(tmp_path, "print('up')").kill()
        assert ended(make(), job).state is JobState.PREEMPTED
        marker = marker_of(wanted)
        assert marker is not None
        assert (marker.exit_code, marker.outcome) == (-9, "terminated")

    def test_a_second_copy_of_an_attempt_touches_nothing(
        self, make: Callable[[], LocalCluster], tmp_path: Path
    ) -> None:
        wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
        job = make().submit(wanted)
        ended(make(), job)
        before = marker_of(wanted)
        (request_file,) = (wanted.directory / "submission" / wanted.name).glob("request-*.json")
        code = (
            "import json, sys; from llmzero_hpc.cluster.phase_job import PhaseJob; "
            "PhaseJob(**json.load(open(sys.argv[1])))()"
        )
        subprocess.run([sys.executable, "-c", code, request_file], check=True)
        assert (wanted.directory / "runs").read_text() == "x"
        assert marker_of(wanted) == before

    def test_someone_who_reads_the_log_is_no_part_of_the_job(
        self, make: Callable[[], LocalCluster], tmp_path: Path
    ) -> None:
        wanted = request(tmp_path, "lz-a-0-1", WAITS)
        job = make().submit(wanted)
        running(make(), job)
        reader = subprocess.Popen([sys.executable, "-c", WAITS, str(wanted.directory / "trainer.log")])
        cancelled(make(), job)
        assert reader.poll() is None
        reader.kill()
        reader.wait()

    @pytest.mark.slow
    def test_many_jobs_are_observed_with_one_scan(
        self, make: Callable[[], LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cluster = make()
        jobs = [cluster.submit(request(tmp_path, f"lz-a-{number}-1", WAITS)) for number in range(20)]
        for job in jobs:
            running(cluster, job)
        scans = []
        scan = psutil.process_iter
        monkeypatch.setattr(psutil, "process_iter", lambda: scans.append(1) or scan())
        assert {seen.state for seen in cluster.observe(jobs).values()} == {JobState.RUNNING}
        assert len(scans) == 1
        monkeypatch.undo()
        for job in jobs:
            cluster.cancel(job)
        for job in jobs:
            cancelled(cluster, job)

    def test_a_folder_that_cannot_be_written_is_an_error_of_the_cluster(self, tmp_path: Path) -> None:
        (tmp_path / "cluster").write_text("in the way")
        wanted = request(tmp_path, "lz-a-0-1", "")
        with pytest.raises(ClusterError, match="lz-a-0-1"):
            LocalCluster(tmp_path / "cluster").submit(wanted)
        assert LocalCluster(tmp_path / "cluster").find(wanted.name, wanted.directory) is None

    def test_jobs_on_gpus_share_none_while_there_are_enough(
        self, make: Callable[[], LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-b,5")
        program = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n" + WAITS
        cpu = [request(tmp_path, f"lz-a-{number}-1", program) for number in range(3)]
        wanted = [
            JobRequest(job.name, job.directory, job.plan, 1, devices, gpus=True, time_limit_seconds=60.0)
            for job, devices in zip(cpu, (2, 1, 4), strict=True)
        ]
        jobs = [make().submit(job) for job in wanted[:2]]
        until(lambda: all(log_of(job) for job in wanted[:2]), "both jobs")
        assert [log_of(job).strip() for job in wanted[:2]] == ["2,GPU-b", "5"]
        with pytest.raises(ClusterError, match="4 GPUs"):
            make().submit(wanted[2])
        for job in jobs:
            cancelled(make(), job)


def test_gpus_are_those_with_a_device_file(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []


def test_a_folder_stands_in_a_command_line_whole() -> None:
    assert stands_in("/a/submission/lz-a-1", ["python", "/a/submission/lz-a-1"])
    assert stands_in("/a/submission/lz-a-1", ["python", "/a/submission/lz-a-1/request-1.json"])
    assert not stands_in("/a/submission/lz-a-1", ["python", "/a/submission/lz-a-11"])


def test_a_search_gets_the_cluster_it_asks_for(tmp_path: Path) -> None:
    config = SearchConfig(name="a", model="builtin:chains", task=ChainsTask())
    assert isinstance(make_cluster(config, tmp_path), LocalCluster)
