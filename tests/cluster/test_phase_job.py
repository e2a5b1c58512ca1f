"""The phase job by itself, as Slurm will run it: requeues, and signals that ask for one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from cluster_contract import WAITS, log_of, marker_of, processes_in, request, until

from llmzero_hpc.cluster.phase_job import PhaseJob, claim_file, read_claim, restart_count, scrubbed

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from llmzero_hpc.cluster.base import JobRequest

# What submitit does: a handler for the signal that announces preemption, and then the call.
RUN = """
import json, pickle, signal, sys
from llmzero_hpc.cluster.phase_job import PhaseJob
job = PhaseJob(**json.loads(sys.argv[1]))
def preempted(number, frame):
    again = job.checkpoint()
    assert pickle.loads(pickle.dumps(again.function)).request() == job.request()
    sys.exit(0)
signal.signal(signal.SIGUSR2, preempted)
sys.exit(job() % 256)
"""


def started(wanted: JobRequest, **environment: str) -> subprocess.Popen[bytes]:
    job = PhaseJob(
        name=wanted.name,
        directory=str(wanted.directory),
        command=list(wanted.plan.command),
        environment=environment,
        attempt=1,
        devices=1,
        gpus=False,
        time_limit_seconds=60.0,
        grace_seconds=0.5,
    )
    return subprocess.Popen([sys.executable, "-c", RUN, json.dumps(job.request())])


def test_preemption_stops_the_command_and_leaves_the_end_to_the_requeued_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(tmp_path, "lz-a-0-1", "import os; print(os.environ['LLMZERO_RESTART'], flush=True)\n" + WAITS)
    first = started(wanted)
    until(lambda: log_of(wanted) == "0\n", "the command")
    first.send_signal(signal.SIGUSR2)
    assert first.wait() == 0
    assert processes_in(tmp_path) == []
    assert marker_of(wanted) is None
    # The same restart is over; the requeued one claims anew.
    assert started(wanted).wait() == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    second = started(wanted)
    until(lambda: log_of(wanted).splitlines()[-1] == "1", "the command again")
    assert read_claim(wanted.directory)["pid"] == second.pid
    assert claim_file(wanted.directory).exists()
    second.terminate()
    second.wait()
    marker = marker_of(wanted)
    assert marker is not None
    assert (marker.restart, marker.outcome) == (1, "terminated")
    assert processes_in(tmp_path) == []


def test_a_command_that_saves_on_sigterm_is_given_its_time(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.2); print('saved', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save); print('up', flush=True); time.sleep(600)"
    )
    wanted = request(tmp_path, "lz-a-0-1", program)
    job = started(wanted)
    until(lambda: "up" in log_of(wanted), "the command")
    for _ in range(3):
        job.terminate()
    assert job.wait() == 0
    assert "saved" in log_of(wanted)
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "completed"


def test_the_plan_has_the_last_word_on_its_environment(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", "import os; print(os.environ['OMP_NUM_THREADS'])")
    assert started(wanted, OMP_NUM_THREADS="3").wait() == 0
    assert log_of(wanted) == "3\n"


def test_traces_of_the_surrounding_job_are_removed_and_nothing_else() -> None:
    before = {"SLURM_CONF": "a", "SLURM_JOB_ID": "1", "PMIX_RANK": "0", "SUBMITIT_EXECUTOR": "local", "HOME": "/h"}
    assert scrubbed(before) == {"SLURM_CONF": "a", "HOME": "/h"}


def test_the_restart_count_is_slurms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert restart_count() == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert restart_count() == 2
