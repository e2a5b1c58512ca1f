"""The phase job by itself, as Slurm runs it: requeues, signals that ask for one, runs that a newer one has replaced."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from cluster_contract import WAITS, log_of, marker_of, processes_in, request, until
from phase_jobs import REQUEUED, started

from llmzero_hpc.cluster.claim import is_superseded, read_claim, take_claim
from llmzero_hpc.cluster.job_environment import restart_count, scrubbed, seconds_left
from llmzero_hpc.store.marker import Marker, read_marker, write_marker
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from pathlib import Path

SAVES = """
import os, pathlib, signal, sys, time
def save(*_):
    pathlib.Path("checkpoints", f"step_{os.environ['LLMZERO_RESTART']}").mkdir(parents=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
time.sleep(600)
"""
SAYS_RUN = "import os; print(os.environ['LLMZERO_RESTART'], flush=True)\n" + WAITS
LONG = {"SLURM_JOB_END_TIME": str(int(time.time()) + 86400)}
SOON = {"SLURM_JOB_END_TIME": str(int(time.time()) + 60)}


def test_preemption_stops_the_command_and_leaves_the_end_to_the_requeued_job(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAYS_RUN)
    first = started(wanted, **LONG)
    until(lambda: log_of(wanted) == "0\n", "the command")
    first.send_signal(signal.SIGUSR2)
    assert first.wait() == REQUEUED
    assert processes_in(tmp_path) == []
    assert marker_of(wanted) is None
    # The same run is over; the requeued job makes a new one.
    assert started(wanted, **LONG).wait() == 0
    second = started(wanted, SLURM_RESTART_COUNT="1", **LONG)
    until(lambda: log_of(wanted).splitlines()[-1] == "1", "the command again")
    claim = read_claim(AttemptDirectory(wanted.directory))
    assert claim is not None
    assert claim.pid == second.pid
    assert AttemptDirectory(wanted.directory).claimed_runs() == [0, 1]
    second.terminate()
    assert second.wait() == 128 + signal.SIGTERM
    marker = marker_of(wanted)
    assert marker is not None
    assert (marker.restart, marker.outcome) == (1, "terminated")
    assert processes_in(tmp_path) == []


@pytest.mark.parametrize(
    ("program", "environment", "code", "outcome"),
    [
        (SAVES, SOON, REQUEUED, None),
        (SAVES, {}, REQUEUED, None),
        (SAYS_RUN, SOON, 128 + signal.SIGTERM, "time_limit"),
        (SAYS_RUN, {}, 128 + signal.SIGTERM, "time_limit"),
        (SAYS_RUN, LONG, REQUEUED, None),
    ],
    ids=["limit, gain", "limit unknown, gain", "limit, no gain", "limit unknown, no gain", "preemption, no gain"],
)
def test_a_run_is_queued_again_unless_its_time_was_up_and_it_gained_nothing(
    tmp_path: Path, program: str, environment: dict[str, str], code: int, outcome: str | None
) -> None:
    wanted = request(tmp_path, "lz-a-0-1", program)
    job = started(
        wanted, {"progress": str(wanted.directory / "checkpoints"), "time_limit_seconds": None}, **environment
    )
    until(lambda: bool(log_of(wanted)), "the command")
    job.send_signal(signal.SIGUSR2)
    assert job.wait() == code
    marker = marker_of(wanted)
    assert (marker and marker.outcome) == outcome


def test_a_site_without_requeues_gets_an_end_and_a_marker(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAYS_RUN)
    job = started(wanted, REQUEUE_REFUSED="Requested operation is presently disabled", **LONG)
    until(lambda: bool(log_of(wanted)), "the command")
    job.send_signal(signal.SIGUSR2)
    assert job.wait() == 128 + signal.SIGTERM
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "terminated"
    assert "presently disabled" in log_of(wanted)


def test_a_phase_that_ends_while_it_is_being_preempted_is_complete(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAVES.replace("sys.exit(1)", "sys.exit(0)"))
    job = started(wanted, **LONG)
    until(lambda: "up" in log_of(wanted), "the command")
    job.send_signal(signal.SIGUSR2)
    assert job.wait() == 0
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "completed"


def test_the_announcing_signal_does_not_end_what_slurm_also_sends_it_to(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('alive')")
    assert started(wanted).wait() == 0
    assert log_of(wanted) == "alive\n"


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


def test_a_run_that_a_newer_one_has_replaced_is_killed_and_leaves_no_marker(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAVES)
    old = started(wanted)
    until(lambda: "up" in log_of(wanted), "the command")
    new = started(wanted, SLURM_RESTART_COUNT="2")
    assert old.wait() == 128 + signal.SIGKILL
    # Not even time to save: that would fall upon what the newer run writes.
    assert not (wanted.directory / "checkpoints").exists()
    assert marker_of(wanted) is None
    until(lambda: log_of(wanted).count("up") == 2, "the newer run")
    assert new.poll() is None
    new.terminate()
    new.wait()
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.restart == 2
    assert processes_in(tmp_path) == []


def test_a_newer_attempt_ends_the_older_one(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAYS_RUN)
    old = started(wanted)
    until(lambda: bool(log_of(wanted)), "the command")
    AttemptDirectory(wanted.directory.parent / "2").create()
    assert old.wait() == 128 + signal.SIGKILL
    assert marker_of(wanted) is None
    assert processes_in(tmp_path) == []


def test_a_late_marker_of_an_older_run_changes_nothing(tmp_path: Path) -> None:
    attempt = AttemptDirectory(tmp_path)
    newer = Marker("lz-a-0-1", 1, 1, 5.0, 6.0, 0, "completed")
    write_marker(attempt, newer)
    write_marker(attempt, Marker("lz-a-0-1", 1, 0, 1.0, 9.0, 1, "error"))
    assert read_marker(attempt) == newer


def test_only_newer_runs_replace_a_run(tmp_path: Path) -> None:
    older, own = (AttemptDirectory(tmp_path / "attempts" / str(number)) for number in (9, 10))
    for attempt in (older, own):
        attempt.create()
    assert take_claim(own, 0, "7")
    assert take_claim(own, 1, "7")
    assert not take_claim(own, 1, "8")
    assert [is_superseded(own, restart) for restart in (0, 1, 2)] == [True, False, False]
    assert is_superseded(older, 5)
    claim = read_claim(own)
    assert claim is not None
    assert (claim.pid, claim.job_id) == (os.getpid(), "7")


def test_the_plan_has_the_last_word_on_its_environment(tmp_path: Path) -> None:
    wanted = request(
        tmp_path, "lz-a-0-1", "import os; print(os.environ['OMP_NUM_THREADS'])", environment={"OMP_NUM_THREADS": "3"}
    )
    assert started(wanted).wait() == 0
    assert log_of(wanted) == "3\n"


def test_a_command_knows_its_machines_and_its_devices(tmp_path: Path) -> None:
    program = (
        "import os; print(*(os.environ.get(key) for key in ('LLMZERO_NODES', 'LLMZERO_HEAD', 'CUDA_VISIBLE_DEVICES')))"
    )
    wanted = request(tmp_path, "lz-a-0-1", program)
    assert started(wanted, CUDA_VISIBLE_DEVICES="3,GPU-b").wait() == 0
    assert log_of(wanted) == "1 127.0.0.1 3,GPU-b\n"


def test_traces_of_the_surrounding_job_are_removed_and_nothing_else() -> None:
    before = {"SLURM_CONF": "a", "SLURM_JOB_ID": "1", "PMIX_RANK": "0", "SUBMITIT_EXECUTOR": "local", "HOME": "/h"}
    assert scrubbed(before) == {"SLURM_CONF": "a", "HOME": "/h"}


def test_slurms_numbers_are_read_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("SLURM_RESTART_COUNT", "SLURM_JOB_END_TIME"):
        monkeypatch.delenv(key, raising=False)
    assert restart_count() == 0
    assert seconds_left() is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 1000))
    assert restart_count() == 2
    left = seconds_left()
    assert left is not None
    assert 0 < left <= 1000
