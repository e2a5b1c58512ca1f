"""The phase job by itself, as Slurm runs it: requeues, signals that ask for one, runs that a newer one has replaced."""

from __future__ import annotations

import math
import os
import signal
from typing import TYPE_CHECKING

import pytest
from cluster_contract import WAITS, log_of, marker_of, nothing_left, request, until
from phase_jobs import REQUEUED, started

from llmzero_hpc.cluster.claim import is_superseded, read_claim, take_claim
from llmzero_hpc.cluster.job_environment import restart_count, scrubbed
from llmzero_hpc.cluster.time_left import parsed_duration
from llmzero_hpc.store.marker import Marker, read_marker, write_marker
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
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
LONG, SOON, UNKNOWN = "1-00:00:00", "1:30", "INVALID"


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The environment of a job to which squeue says how much time is left."""

    def environment(left: str) -> dict[str, str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        squeue = folder / "squeue"
        squeue.write_text(f'#!/bin/sh\n[ "$*" = "--noheader --jobs=7 --format=%L" ] && echo {left}\n')
        squeue.chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}

    return environment


def test_preemption_stops_the_command_and_leaves_the_end_to_the_requeued_job(
    tmp_path: Path, slurm: Callable[[str], dict[str, str]]
) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAYS_RUN)
    first = started(wanted, **slurm(LONG))
    until(lambda: log_of(wanted) == "0\n", "the command")
    first.send_signal(signal.SIGUSR2)
    assert first.wait() == REQUEUED
    nothing_left(tmp_path)
    assert marker_of(wanted) is None
    # The same run is over; the requeued job makes a new one.
    assert started(wanted, **slurm(LONG)).wait() == 0
    second = started(wanted, SLURM_RESTART_COUNT="1", **slurm(LONG))
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
    nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("program", "left", "code", "outcome"),
    [
        (SAVES, SOON, REQUEUED, None),
        (SAVES, UNKNOWN, REQUEUED, None),
        (SAYS_RUN, SOON, 128 + signal.SIGTERM, "time_limit"),
        (SAYS_RUN, UNKNOWN, 128 + signal.SIGTERM, "time_limit"),
        (SAYS_RUN, LONG, REQUEUED, None),
        (SAYS_RUN, "UNLIMITED", REQUEUED, None),
    ],
)
def test_a_run_is_queued_again_unless_its_time_was_up_and_it_gained_nothing(
    tmp_path: Path, slurm: Callable[[str], dict[str, str]], program: str, left: str, code: int, outcome: str | None
) -> None:
    wanted = request(tmp_path, "lz-a-0-1", program)
    fields = {"progress": str(wanted.directory / "checkpoints"), "time_limit_seconds": None}
    job = started(wanted, fields, **slurm(left))
    until(lambda: bool(log_of(wanted)), "the command")
    job.send_signal(signal.SIGUSR2)
    assert job.wait() == code
    marker = marker_of(wanted)
    assert (marker and marker.outcome) == outcome


def test_a_site_without_requeues_gets_an_end_and_a_marker(
    tmp_path: Path, slurm: Callable[[str], dict[str, str]]
) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAYS_RUN)
    job = started(wanted, REQUEUE_REFUSED="Requested operation is presently disabled", **slurm(LONG))
    until(lambda: bool(log_of(wanted)), "the command")
    job.send_signal(signal.SIGUSR2)
    assert job.wait() == 128 + signal.SIGTERM
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "terminated"
    assert "presently disabled" in log_of(wanted)


def test_a_phase_that_ends_while_it_is_being_preempted_is_complete(
    tmp_path: Path, slurm: Callable[[str], dict[str, str]]
) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAVES.replace("sys.exit(1)", "sys.exit(0)"))
    job = started(wanted, **slurm(LONG))
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
    nothing_left(tmp_path)


def test_a_newer_attempt_ends_the_older_one(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", SAYS_RUN)
    old = started(wanted)
    until(lambda: bool(log_of(wanted)), "the command")
    AttemptDirectory(wanted.directory.parent / "2").create()
    assert old.wait() == 128 + signal.SIGKILL
    assert marker_of(wanted) is None
    nothing_left(tmp_path)


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


def test_the_restart_count_is_slurms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert restart_count() == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert restart_count() == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:09", 9), ("59:01", 3541), ("1:02:03", 3723), ("2-01:00:00", 176400), ("UNLIMITED", math.inf)],
)
def test_slurms_durations_are_read(text: str, seconds: float) -> None:
    assert parsed_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "INVALID", "NOT_SET", "-1:00", "slurm_load_jobs error"])
def test_what_is_no_duration_is_unknown(text: str) -> None:
    assert parsed_duration(text) is None
