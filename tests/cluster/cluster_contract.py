"""What every cluster promises. A cluster's test class inherits `ClusterContract` and provides the fixture `make`."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import polling
import psutil
import pytest

from llmzero_hpc.cluster.base import Cluster, JobObservation, JobRequest, JobState
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.search.node import Job
from llmzero_hpc.store.marker import Marker, read_marker
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.trainers.base import LaunchPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    MakeCluster = Callable[[], Cluster]

DEADLINE_SECONDS = 300.0
WAITS = "import time; time.sleep(600)"
SHOWS_KEYS = "import os; print(os.environ.get('A_KEY'), os.environ.get('NO_KEY'))"
IGNORES_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)"
HAS_GRANDCHILDREN = """
import subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[-1]]
subprocess.Popen(sleeper)
subprocess.Popen(sleeper, start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll with a deadline."""
    polling.until(condition, what, DEADLINE_SECONDS)


def request(
    root: Path,
    name: str,
    program: str,
    *,
    time_limit_seconds: float = 600.0,
    environment: Mapping[str, str] | None = None,
) -> JobRequest:
    """A job that runs a Python program in an attempt's folder of its own; its name is not used again by other tests."""
    name = f"{root.name}-{name}"
    directory = root / "phases" / name / "attempts" / "1"
    AttemptDirectory(directory).create()
    plan = LaunchPlan((sys.executable, "-c", program, str(directory)), dict(environment or {}))
    return JobRequest(name, directory, plan, 1, 1, gpus=False, time_limit_seconds=time_limit_seconds)


def processes_in(root: Path) -> list[psutil.Process]:
    """Live processes whose command line names something below `root`: found without the cluster's own means."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(str(root) in part for part in process.cmdline())
            if named and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def nothing_left(root: Path) -> None:
    """What was killed may need a moment to be gone."""
    until(lambda: processes_in(root) == [], "the end of all processes")


def marker_of(job: JobRequest) -> Marker | None:
    return read_marker(AttemptDirectory(job.directory))


def log_of(job: JobRequest) -> str:
    log = AttemptDirectory(job.directory).trainer_log
    return log.read_text() if log.exists() else ""


def state_of(cluster: Cluster, job: Job) -> JobState | None:
    seen = cluster.observe([job]).get(job.name)
    return None if seen is None else seen.state


def ended(cluster: Cluster, job: Job) -> JobObservation:
    """The observation of a job that has come to its end."""
    last: list[JobObservation] = []

    def is_over() -> bool:
        seen = cluster.observe([job]).get(job.name)
        last[:] = [seen] if seen is not None and not seen.state.is_live else []
        return bool(last)

    until(is_over, f"the end of {job.name}")
    return last[0]


def running(cluster: Cluster, job: Job) -> None:
    until(lambda: state_of(cluster, job) is JobState.RUNNING, f"{job.name} running")


def cancelled(cluster: Cluster, job: Job) -> None:
    """Ask for its end until no process of it is left."""

    def is_gone() -> bool:
        cluster.cancel(job)
        seen = state_of(cluster, job)
        return seen is None or not seen.is_live

    until(is_gone, f"the end of {job.name}")


class ClusterContract:
    """Runs real jobs. `make` gives a cluster with a grace of seconds, anew as after a controller's restart."""

    shortest_limit_seconds = 1.0
    """Time limit that the cluster takes as it is."""
    states_at_the_limit = frozenset({JobState.TIME_LIMIT})

    @pytest.fixture
    def make(self, tmp_path: Path) -> MakeCluster:
        raise NotImplementedError

    @pytest.fixture
    def cluster(self, make: MakeCluster) -> Cluster:
        return make()

    def test_a_job_runs_its_command_and_leaves_a_marker(self, cluster: Cluster, tmp_path: Path) -> None:
        wanted = request(tmp_path, "lz-a-0-1", "import sys; print('out'); print('err', file=sys.stderr)")
        job = cluster.submit(wanted)
        assert job.name == wanted.name
        assert abs(job.submitted_at - time.time()) < DEADLINE_SECONDS
        seen = ended(cluster, job)
        assert seen.state is JobState.COMPLETED
        marker = marker_of(wanted)
        assert marker is not None
        assert (marker.name, marker.attempt, marker.exit_code, marker.outcome) == (job.name, 1, 0, "completed")
        assert marker.started_at <= marker.ended_at
        assert set(log_of(wanted).split()) >= {"out", "err"}

    def test_a_live_job_says_so_and_since_when(self, cluster: Cluster, tmp_path: Path) -> None:
        before = time.time()
        job = cluster.submit(request(tmp_path, "lz-a-0-1", WAITS))
        assert state_of(cluster, job) in {JobState.PENDING, JobState.RUNNING}
        running(cluster, job)
        started_at = cluster.observe([job])[job.name].started_at
        assert started_at is not None
        assert before - 1 <= started_at <= time.time()
        cancelled(cluster, job)

    def test_the_commands_own_error_is_a_failure_with_its_exit_code(self, cluster: Cluster, tmp_path: Path) -> None:
        wanted = request(tmp_path, "lz-a-0-1", "raise SystemExit(3)")
        assert ended(cluster, cluster.submit(wanted)).state is JobState.FAILED
        marker = marker_of(wanted)
        assert marker is not None
        assert (marker.exit_code, marker.outcome) == (3, "error")

    def test_a_command_that_cannot_start_is_a_failure(self, cluster: Cluster, tmp_path: Path) -> None:
        fine = request(tmp_path, "lz-a-0-1", "")
        plan = LaunchPlan(("/nowhere/python", str(fine.directory)))
        wanted = JobRequest(fine.name, fine.directory, plan, 1, 1, gpus=False, time_limit_seconds=60.0)
        assert ended(cluster, cluster.submit(wanted)).state is JobState.FAILED
        marker = marker_of(wanted)
        assert marker is not None
        assert marker.exit_code == 127
        assert "/nowhere/python" in log_of(wanted)

    def test_a_job_is_found_by_name_live_and_ended_also_by_a_new_controller(
        self, make: MakeCluster, tmp_path: Path
    ) -> None:
        wanted = request(tmp_path, "lz-a-0-1", WAITS)
        job = make().submit(wanted)
        assert make().find(job.name, wanted.directory) == job
        running(make(), job)
        cancelled(make(), job)
        assert make().find(job.name, wanted.directory) == job

    def test_what_was_never_submitted_is_not_found_and_not_observed(self, cluster: Cluster, tmp_path: Path) -> None:
        wanted = request(tmp_path, "lz-a-0-1", WAITS)
        assert cluster.find(wanted.name, wanted.directory) is None
        assert cluster.observe([Job("1", wanted.name, 0.0)]) == {}
        cluster.cancel(Job("1", wanted.name, 0.0))

    def test_one_attempt_is_never_two_jobs(self, make: MakeCluster, tmp_path: Path) -> None:
        wanted = request(tmp_path, "lz-a-0-1", "open('runs', 'a').write('x')")
        job = make().submit(wanted)
        with pytest.raises(ClusterError):
            make().submit(wanted)
        ended(make(), job)
        with pytest.raises(ClusterError):
            make().submit(wanted)
        assert (wanted.directory / "runs").read_text() == "x"

    def test_cancel_leaves_no_process_not_even_of_grandchildren(self, cluster: Cluster, tmp_path: Path) -> None:
        wanted = request(tmp_path, "lz-a-0-1", HAS_GRANDCHILDREN)
        job = cluster.submit(wanted)
        until(lambda: "ready" in log_of(wanted), "the grandchildren")
        cancelled(cluster, job)
        nothing_left(tmp_path)
        cluster.cancel(job)
        assert ended(cluster, job).state is JobState.CANCELLED

    def test_a_command_that_ends_takes_its_children_with_it(self, cluster: Cluster, tmp_path: Path) -> None:
        program = HAS_GRANDCHILDREN.removesuffix("time.sleep(600)\n")
        job = cluster.submit(request(tmp_path, "lz-a-0-1", program))
        assert ended(cluster, job).state is JobState.COMPLETED
        nothing_left(tmp_path)

    def test_a_command_deaf_to_sigterm_is_killed_after_the_grace(self, make: MakeCluster, tmp_path: Path) -> None:
        wanted = request(tmp_path, "lz-a-0-1", IGNORES_SIGTERM)
        job = make().submit(wanted)
        until(lambda: "deaf" in log_of(wanted), "the command")
        make().cancel(job)
        cancelled(make(), job)
        nothing_left(tmp_path)

    def test_a_name_is_not_mixed_up_with_a_longer_one(self, cluster: Cluster, tmp_path: Path) -> None:
        short, long = (request(tmp_path, name, WAITS) for name in ("lz-a-1", "lz-a-11"))
        long_job = cluster.submit(long)
        running(cluster, long_job)
        assert cluster.find(short.name, short.directory) is None
        short_job = cluster.submit(short)
        running(cluster, short_job)
        cancelled(cluster, short_job)
        assert state_of(cluster, long_job) is JobState.RUNNING
        cancelled(cluster, long_job)

    def test_the_command_sees_its_own_environment_and_not_the_surrounding_jobs(
        self, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leaks = ("SLURM_JOB_ID", "SLURM_NTASKS", "SBATCH_PARTITION", "PMI_RANK", "PMIX_NAMESPACE", "SUBMITIT_FOLDER")
        for key in leaks:
            monkeypatch.setenv(key, "7")
        monkeypatch.setenv("SLURM_CONF", os.environ.get("SLURM_CONF", "/etc/slurm.conf"))
        program = "import json, os; print(json.dumps(dict(os.environ)))"
        wanted = request(tmp_path, "lz-a-0-1", program, environment={"OF_THE_PLAN": "yes"})
        assert ended(cluster, cluster.submit(wanted)).state is JobState.COMPLETED
        seen = json.loads(log_of(wanted).strip().splitlines()[-1])
        foreign = ("SLURM_", "SBATCH_", "PMI", "SUBMITIT_")
        assert [key for key in seen if key.startswith(foreign)] == ["SLURM_CONF"]
        assert seen["OF_THE_PLAN"] == "yes"
        assert seen["PYTHONUNBUFFERED"] == "1"
        assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "1"
        assert (seen["LLMZERO_ATTEMPT"], seen["LLMZERO_RESTART"]) == ("1", "0")

    def test_the_time_limit_ends_a_job(self, cluster: Cluster, tmp_path: Path) -> None:
        wanted = request(tmp_path, "lz-a-0-1", WAITS, time_limit_seconds=self.shortest_limit_seconds)
        assert ended(cluster, cluster.submit(wanted)).state in self.states_at_the_limit
        marker = marker_of(wanted)
        assert marker is not None
        assert marker.outcome == "time_limit"
