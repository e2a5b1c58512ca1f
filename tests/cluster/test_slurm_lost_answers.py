"""Submissions whose answer is lost, late, or never comes: there is one job for an attempt all the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cluster_contract import DEADLINE_SECONDS, ended, request, until

from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.cluster.slurm import SlurmCluster
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.sections import SlurmClusterConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from slurm_cluster import SlurmTestCluster

    from llmzero_hpc.cluster.base import JobRequest
    from llmzero_hpc.search.node import Job

    MakeSlurm = Callable[..., SlurmCluster]

COUNTS_RUNS = "open('runs', 'a').write('x')"
TIMED_OUT = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"
INTERRUPTED_LAUNCHER = """
import os, signal, subprocess, sys
import submitit.core.utils as utils
from pathlib import Path
from llmzero_hpc.cluster.slurm_calls import SubmitCall
from llmzero_hpc.cluster.slurm_submit import submit

left, number = int(sys.argv[2]), signal.Signals(int(sys.argv[3]))

def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), number)

def around(function):
    def wrapped(*arguments, **options):
        step()
        result = function(*arguments, **options)
        step()
        return result
    return wrapped

for place, name in ((os, "link"), (os, "rename"), (os, "symlink"), (utils, "cloudpickle_dump")):
    setattr(place, name, around(getattr(place, name)))
utils.subprocess = type("steps", (), {**vars(subprocess), "Popen": staticmethod(around(subprocess.Popen))})
submit(SubmitCall(Path(sys.argv[1])))
sys.exit(3 if left > 0 else 0)
"""
"""A launcher that gets a signal before or after its n-th durable step, and ends with code 3 where it has fewer."""


@pytest.fixture
def make(clean_slurm: SlurmTestCluster, tmp_path: Path) -> MakeSlurm:
    def cluster(submit_timeout_seconds: float = 10.0, query_timeout_seconds: float = 60.0) -> SlurmCluster:
        settings = SlurmClusterConfig(kind="slurm", submit_timeout_seconds=submit_timeout_seconds)
        root, profile = tmp_path / "cluster", ClusterProfile()
        return SlurmCluster(root, settings, profile, query_timeout_seconds=query_timeout_seconds)

    return cluster


class Sbatch:
    """A program in the place of sbatch; `$real` in its script is the true one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._real = shutil.which("sbatch")
        folder.mkdir()

    def becomes(self, script: str) -> None:
        file = self.folder / "sbatch"
        file.write_text(f"#!/bin/bash\nreal={self._real}\nhere={self.folder}\n{script}\n")
        file.chmod(0o755)

    def is_true_again(self) -> None:
        (self.folder / "sbatch").unlink()


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sbatch:
    program = Sbatch(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{program.folder}:{os.environ['PATH']}")
    return program


def resolved(cluster: SlurmCluster, wanted: JobRequest) -> Job:
    """What a controller does about an attempt without a job: find it, and submit it where it certainly is not there."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            return cluster.find(wanted.name, wanted.directory) or cluster.submit(wanted)
        except ClusterError:
            time.sleep(0.1)
    raise AssertionError(f"no job for {wanted.name}")


def ran_once(cluster: SlurmCluster, wanted: JobRequest, job: Job) -> None:
    """The job has run to its end, and no other of that name will."""
    assert ended(cluster, job).state is JobState.COMPLETED
    until(lambda: not live_jobs(cluster, wanted), f"the last job of {wanted.name}")
    assert (wanted.directory / "runs").read_text() == "x"
    assert cluster.find(wanted.name, wanted.directory) == job


def live_jobs(cluster: SlurmCluster, wanted: JobRequest) -> list[str]:
    return [row.job_id for row in cluster._queue([wanted.name]) if row.is_live]


@pytest.mark.parametrize(
    "after",
    ["exec sleep 600", TIMED_OUT, "kill -9 $$", "echo gibberish", "trap '' TERM; sleep 600", "exit 7"],
    ids=["hangs", "fails", "killed", "garbled", "deaf", "mute"],
)
def test_an_answer_that_is_lost_after_slurm_accepted_loses_no_job(
    make: MakeSlurm, sbatch: Sbatch, tmp_path: Path, after: str
) -> None:
    sbatch.becomes(f'$real "$@" >/dev/null\n{after}')
    wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
    # Unless the job has begun by then, and so has told itself.
    with contextlib.suppress(ClusterError):
        make().submit(wanted)
    sbatch.is_true_again()
    job = resolved(make(), wanted)
    assert len(list(wanted.directory.rglob("request-*.json"))) == 1
    ran_once(make(), wanted, job)


@pytest.mark.slow
def test_five_failures_in_a_row_are_one_job_in_the_end(make: MakeSlurm, sbatch: Sbatch, tmp_path: Path) -> None:
    sbatch.becomes(
        'echo x >> $here/calls; [ "$(wc -l < $here/calls)" -gt 5 ] && exec $real "$@"\n'
        '[ "$(wc -l < $here/calls)" = 5 ] && $real "$@"\n' + TIMED_OUT
    )
    wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
    cluster = make(submit_timeout_seconds=5.0)
    ran_once(cluster, wanted, resolved(cluster, wanted))
    assert (sbatch.folder / "calls").read_text() == "x\n" * 5


def test_while_its_fate_is_open_a_name_is_neither_found_nor_free(
    make: MakeSlurm, sbatch: Sbatch, tmp_path: Path
) -> None:
    sbatch.becomes(TIMED_OUT)
    wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
    # It is open for twice as long as sbatch may take.
    cluster = make(submit_timeout_seconds=120.0)
    with pytest.raises(ClusterError, match="Socket timed out"):
        cluster.submit(wanted)
    with pytest.raises(ClusterError, match="Socket timed out"):
        cluster.find(wanted.name, wanted.directory)
    with pytest.raises(ClusterError, match="submitted before"):
        cluster.submit(wanted)


def test_a_job_that_slurm_takes_after_it_was_given_up_never_runs(
    make: MakeSlurm, sbatch: Sbatch, tmp_path: Path
) -> None:
    sbatch.becomes(
        'cp "$1" $here/late.sh; (cd "$PWD"; trap "" TERM; exec 1>&- 2>&-\n'
        'until [ -e $here/go ]; do sleep 0.05; done; $real "$1") & disown\n'
        "exec sleep 600"
    )
    wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
    cluster = make()
    with pytest.raises(ClusterError, match="no answer within 10 s"):
        cluster.submit(wanted)
    sbatch.is_true_again()
    job = resolved(cluster, wanted)
    assert len(list(wanted.directory.rglob("request-*.json"))) == 2
    (sbatch.folder / "go").touch()
    until(lambda: len(cluster._queue([wanted.name])) == 2, "the late job")
    ran_once(cluster, wanted, job)


def interrupted(
    cluster: SlurmCluster, wanted: JobRequest, step: int, number: signal.Signals
) -> subprocess.Popen[bytes]:
    call = cluster._prepared(wanted, cluster._script(wanted))
    command = [sys.executable, "-c", INTERRUPTED_LAUNCHER, str(call.request_file), str(step), str(int(number))]
    return subprocess.Popen(command, cwd=call.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


STEPS = 12
"""Before and after: the pickle, the ticket, sbatch, the script's new name, its link, the pickle's new name."""


@pytest.mark.slow
def test_a_launcher_killed_at_any_step_leaves_one_job_or_none(make: MakeSlurm, tmp_path: Path) -> None:
    cluster = make()
    wanted = [request(tmp_path, f"lz-a-{step}-1", COUNTS_RUNS) for step in range(1, STEPS + 2)]
    codes = [
        interrupted(cluster, job, step, signal.SIGKILL).wait(DEADLINE_SECONDS) for step, job in enumerate(wanted, 1)
    ]
    assert codes == [-signal.SIGKILL] * STEPS + [3]
    jobs = [resolved(cluster, job) for job in wanted]
    for one, job in zip(wanted, jobs, strict=True):
        ran_once(cluster, one, job)


@pytest.mark.slow
def test_a_launcher_that_slept_at_any_step_makes_no_second_job(make: MakeSlurm, tmp_path: Path) -> None:
    cluster = make()
    wanted = [request(tmp_path, f"lz-a-{step}-1", COUNTS_RUNS) for step in range(1, STEPS + 1)]
    launchers = [interrupted(cluster, job, step, signal.SIGSTOP) for step, job in enumerate(wanted, 1)]
    for launcher in launchers:
        until(lambda: os.WIFSTOPPED(_status(launcher.pid)), "the launcher's sleep")  # noqa: B023 - asked at once
    jobs = [resolved(cluster, job) for job in wanted]
    for launcher in launchers:
        launcher.send_signal(signal.SIGCONT)
    for launcher in launchers:
        launcher.wait(DEADLINE_SECONDS)
    for one, job in zip(wanted, jobs, strict=True):
        ran_once(cluster, one, job)


def _status(pid: int) -> int:
    """As waitpid has it, of a child that may have stopped."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return 0x7F if state == "T" else 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_submission_while_slurmctld_is_away_becomes_one_job_when_it_is_back(
    make: MakeSlurm, clean_slurm: SlurmTestCluster, tmp_path: Path, number: signal.Signals
) -> None:
    cluster = make(submit_timeout_seconds=2.0, query_timeout_seconds=2.0)
    wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
    if number is signal.SIGSTOP:
        clean_slurm.freeze("ctld")
    else:
        clean_slurm.stop("ctld", number)
    with pytest.raises(ClusterError, match="is not known"):
        cluster.submit(wanted)
    with pytest.raises(ClusterError, match="no answer within 2 s"):
        cluster.find(wanted.name, wanted.directory)
    with pytest.raises(ClusterError, match="asked again in"):
        cluster.find(wanted.name, wanted.directory)
    with pytest.raises(ClusterError, match="asked again in"):
        cluster.submit(wanted)
    assert cluster.calls == {"sbatch": 1, "squeue": 1}
    if number is signal.SIGSTOP:
        clean_slurm.thaw("ctld")
    else:
        clean_slurm.start("ctld")
    cluster = make()
    ran_once(cluster, wanted, resolved(cluster, wanted))


def test_two_controllers_submit_one_job(make: MakeSlurm, sbatch: Sbatch, tmp_path: Path) -> None:
    sbatch.becomes('echo x >> $here/calls; sleep 0.5; exec $real "$@"')
    wanted = request(tmp_path, "lz-a-0-1", COUNTS_RUNS)
    first = make(submit_timeout_seconds=60.0)
    call = first._prepared(wanted, first._script(wanted))
    with pytest.raises(ClusterError, match="submitted before"):
        make().submit(wanted)
    first._launch(call)
    ran_once(make(), wanted, resolved(make(), wanted))
    assert (sbatch.folder / "calls").read_text() == "x\n"
