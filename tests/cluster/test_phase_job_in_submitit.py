"""The phase job inside submitit's own process, as srun starts it; Slurm's commands are played by scripts."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cluster_contract import WAITS, log_of, marker_of, request, until
from phase_jobs import REQUEUED, phase_job

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.cluster.base import JobRequest

SAYS_RUN = "import os; print('run', os.environ['LLMZERO_RESTART'], flush=True)\n" + WAITS
UNTIL_GO = """
import os, pathlib, time
print('run', os.environ['LLMZERO_RESTART'], flush=True)
while not pathlib.Path('go').exists():
    time.sleep(.02)
"""


class Slurm:
    """Job 7: what submitit finds in its folder and around it."""

    def __init__(self, root: Path, wanted: JobRequest) -> None:
        from submitit.core.utils import DelayedSubmission

        self.folder, self._bin = root / "submission", root / "bin"
        for folder in (self.folder, self._bin):
            folder.mkdir()
        self.requeues = root / "requeues"
        self.play("squeue", "echo 1-00:00:00")
        self.play("scontrol", f'echo "$*" >> {self.requeues}')
        delayed = DelayedSubmission(phase_job(wanted, time_limit_seconds=None))
        delayed.set_timeout(60, 1_000_000)
        delayed.dump(self.folder / "7_submitted.pkl")

    def play(self, command: str, does: str) -> None:
        script = self._bin / command
        script.write_text(f"#!/bin/sh\n{does}\n")
        script.chmod(0o755)

    def start(self, restart: int) -> subprocess.Popen[bytes]:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "SUBMITIT_EXECUTOR": "slurm",
            "SLURM_JOB_ID": "7",
            "SLURM_PROCID": "0",
            "SLURM_RESTART_COUNT": str(restart),
            "PATH": f"{self._bin}:{os.environ['PATH']}",
        }
        command = [sys.executable, "-m", "submitit.core._submit", str(self.folder)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def wanted(tmp_path: Path) -> JobRequest:
    return request(tmp_path, "lz-a-0-1", UNTIL_GO)


@pytest.fixture
def slurm(tmp_path: Path, wanted: JobRequest) -> Slurm:
    return Slurm(tmp_path, wanted)


def announced_in(job: subprocess.Popen[bytes], wanted: JobRequest, run: int) -> int:
    until(lambda: f"run {run}\n" in log_of(wanted), f"run {run} of the command")
    job.send_signal(signal.SIGUSR2)
    return job.wait()


def test_a_job_is_queued_again_and_again_whatever_killed_runs_left(slurm: Slurm, wanted: JobRequest) -> None:
    from submitit.core.utils import pickle_load

    assert announced_in(slurm.start(0), wanted, 0) == REQUEUED
    assert slurm.requeues.read_text() == "requeue 7\n"
    # As if run 0 had been killed while it wrote them.
    for name in ("7_submitted.pkl", "7_0_result.pkl"):
        (slurm.folder / f"{name}.save_tmp").write_bytes(b"torn")
    (slurm.folder / "7_0_result.pkl").write_bytes(pickle.dumps(("error", "of run 0")))
    assert announced_in(slurm.start(1), wanted, 1) == REQUEUED
    assert slurm.requeues.read_text() == "requeue 7\n" * 2
    (wanted.directory / "go").touch()
    assert slurm.start(2).wait() == 0
    marker = marker_of(wanted)
    assert marker is not None
    assert (marker.restart, marker.outcome) == (2, "completed")
    assert pickle_load(slurm.folder / "7_0_result.pkl") == ("success", 0)
    assert not list(slurm.folder.glob("*.save_tmp"))


def test_a_refused_requeue_ends_the_job_with_its_marker(slurm: Slurm, wanted: JobRequest) -> None:
    slurm.play("scontrol", "exit 1")
    assert announced_in(slurm.start(0), wanted, 0) == 128 + signal.SIGTERM
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "terminated"


def test_the_commands_exit_code_is_the_jobs(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-b-0-1", "raise SystemExit(3)")
    assert Slurm(tmp_path, wanted).start(0).wait() == 3
