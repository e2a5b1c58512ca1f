"""A phase job on several machines: its processes side by side here, as srun would start them one a machine."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from cluster_contract import WAITS, log_of, marker_of, nothing_left, processes_in, request, until
from phase_jobs import started

from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from llmzero_hpc.cluster.base import JobRequest

UP = "print('up', flush=True)\n" + WAITS
UNTIL_GO = """
import os, pathlib, time
print('up', flush=True)
while not pathlib.Path('go').exists():
    time.sleep(.02)
"""


class Job:
    """One run of a job with a process for each of its machines. `head` are fields that the first alone is told."""

    def __init__(
        self,
        wanted: JobRequest,
        nodes: int,
        *,
        job_id: str = "7",
        restart: int = 0,
        head: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        self._wanted, self._nodes = wanted, nodes
        self._fields, self._of_head = {"nodes": nodes, **fields}, head or {}
        self._slurm = {"SLURM_JOB_ID": job_id, "SLURM_RESTART_COUNT": str(restart)}
        self.ranks = [self.start(rank) for rank in reversed(range(nodes))][::-1]

    def start(self, rank: int) -> subprocess.Popen[bytes]:
        fields = self._fields if rank else self._fields | self._of_head
        return started(self._wanted, fields, SLURM_PROCID=str(rank), **self._slurm)

    @property
    def head(self) -> subprocess.Popen[bytes]:
        return self.ranks[0]

    def codes(self) -> list[int]:
        return [rank.wait() for rank in self.ranks]

    def is_complete(self) -> bool:
        """All machines are there, and the command runs."""
        attempt = AttemptDirectory(self._wanted.directory)
        restart = int(self._slurm["SLURM_RESTART_COUNT"])
        present = all(attempt.present(restart, rank).exists() for rank in range(1, self._nodes))
        return present and "up" in log_of(self._wanted)


@pytest.fixture
def wanted(tmp_path: Path) -> JobRequest:
    return request(tmp_path, "lz-a-0-1", UP)


def test_the_command_runs_on_the_head_alone_and_the_others_leave_with_it(tmp_path: Path) -> None:
    program = UNTIL_GO.replace("'up'", "'up', os.environ['LLMZERO_NODES']")
    wanted = request(tmp_path, "lz-a-0-1", program)
    job = Job(wanted, 3)
    until(job.is_complete, "the job")
    (wanted.directory / "go").touch()
    assert job.codes() == [0, 0, 0]
    assert log_of(wanted) == "up 3\n"
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "completed"
    assert sorted(path.name for path in wanted.directory.iterdir()) == [
        "claim", "go", "head.json", "marker.json", "submission", "trainer.log",
    ]  # fmt: skip


def test_the_head_waits_for_the_others_to_leave_before_it_fails(tmp_path: Path) -> None:
    # srun is told to end all as soon as one process fails.
    wanted = request(tmp_path, "lz-a-0-1", UNTIL_GO + "raise SystemExit(3)")
    # It gives them five looks of its own, which must be longer than one of theirs.
    job = Job(wanted, 2, head={"watch_seconds": 5.0})
    until(job.is_complete, "the job")
    (wanted.directory / "go").touch()
    assert job.head.wait() == 3
    assert not list(wanted.directory.glob("rank-*"))
    assert job.codes() == [3, 0]


def test_scancel_ends_all_machines_the_head_first(wanted: JobRequest, tmp_path: Path) -> None:
    job = Job(wanted, 3)
    until(job.is_complete, "the job")
    for rank in job.ranks:
        rank.terminate()
    assert job.codes() == [128 + signal.SIGTERM, 0, 0]
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "terminated"
    nothing_left(tmp_path)


def test_others_that_are_told_to_end_do_so_after_the_grace_even_if_the_head_does_not(wanted: JobRequest) -> None:
    job = Job(wanted, 2, grace_seconds=0.5)
    until(job.is_complete, "the job")
    job.ranks[1].terminate()
    assert job.ranks[1].wait() == 0
    assert job.head.poll() is None
    job.head.terminate()
    job.head.wait()


def test_the_announcement_is_answered_by_the_head_alone(wanted: JobRequest) -> None:
    # With nothing gained, and nobody to say how much time is left.
    job = Job(wanted, 2)
    until(job.is_complete, "the job")
    for rank in reversed(job.ranks):
        rank.send_signal(signal.SIGUSR2)
    assert job.codes() == [128 + signal.SIGTERM, 0]
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "time_limit"


def test_the_death_of_another_machine_neither_ends_nor_holds_up_the_head(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", UNTIL_GO)
    job = Job(wanted, 3)
    until(job.is_complete, "the job")
    job.ranks[2].kill()
    job.ranks[2].wait()
    assert job.head.poll() is None
    (wanted.directory / "go").touch()
    assert job.codes() == [0, 0, -signal.SIGKILL]
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "completed"


def test_nothing_outlives_a_head_that_was_killed(wanted: JobRequest, tmp_path: Path) -> None:
    job = Job(wanted, 3, watch_seconds=0.1)
    until(job.is_complete, "the job")
    job.head.kill()
    job.head.wait()
    until(lambda: len(processes_in(tmp_path)) <= 4, "the end of its command")  # two machines, each with its reaper
    assert job.codes() == [-signal.SIGKILL, 0, 0]
    assert marker_of(wanted) is None
    nothing_left(tmp_path)


def test_a_second_copy_of_the_job_touches_nothing_on_any_machine(wanted: JobRequest) -> None:
    first = Job(wanted, 2)
    until(first.is_complete, "the job")
    before = {path: path.stat().st_mtime_ns for path in wanted.directory.iterdir() if path.name != "head.json"}
    assert Job(wanted, 2, job_id="8").codes() == [0, 0]
    # The same job once more, as after a crash of slurmctld.
    assert [first.start(rank).wait() for rank in (0, 1)] == [0, 0]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert log_of(wanted) == "up\n"
    for rank in first.ranks:
        rank.terminate()
    first.codes()


def test_a_requeued_job_is_joined_by_its_own_machines_only(wanted: JobRequest, tmp_path: Path) -> None:
    old = Job(wanted, 2)
    until(old.is_complete, "the job")
    new = Job(wanted, 2, restart=1)
    assert old.codes() == [128 + signal.SIGKILL, 0]
    until(new.is_complete, "the newer run")
    assert [rank.poll() for rank in new.ranks] == [None, None]
    for rank in new.ranks:
        rank.terminate()
    new.codes()
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.restart == 1
    nothing_left(tmp_path)


def test_a_machine_whose_head_never_comes_gives_up(wanted: JobRequest) -> None:
    fields = {"nodes": 2, "watch_seconds": 0.02}
    assert started(wanted, fields, SLURM_PROCID="1", SLURM_JOB_ID="7").wait() == 0
    assert not list(wanted.directory.glob("rank-*"))


DURATION_SECONDS = 0.6
TAKES_A_WHILE = f"import time; print('up', flush=True); time.sleep({DURATION_SECONDS})"


@pytest.mark.parametrize("victim", ["head", "other", "command"])
def test_after_a_kill_at_any_instant_the_next_run_comes_to_its_end(tmp_path: Path, victim: str) -> None:
    instants = random.Random(victim)
    for number in range(3):
        wanted = request(tmp_path, f"lz-a-{number}-1", TAKES_A_WHILE)
        first = Job(wanted, 2, grace_seconds=0.5)
        time.sleep(instants.uniform(0, 2 * DURATION_SECONDS))
        if victim == "command":
            for process in processes_in(wanted.directory):
                with contextlib.suppress(psutil.NoSuchProcess):  # it may be just over
                    if TAKES_A_WHILE in process.cmdline():
                        process.kill()
        else:
            first.ranks[victim == "other"].kill()
        # What srun does when a process fails.
        if first.head.wait() != 0:
            first.ranks[1].terminate()
        first.codes()
        nothing_left(wanted.directory)
        before = marker_of(wanted)
        if before is None or before.outcome != "completed":
            assert Job(wanted, 2, restart=1).codes() == [0, 0]
        marker = marker_of(wanted)
        assert marker is not None
        assert (marker.outcome, marker.exit_code) == ("completed", 0)
        nothing_left(wanted.directory)
