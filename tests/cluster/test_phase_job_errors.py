"""What a phase job reports of a command that failed: whose fault it was, and the command's own last word."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from cluster_contract import log_of, marker_of, request, until
from phase_jobs import started

from llmzero_hpc.cluster.last_error import last_error
from llmzero_hpc.cluster.ray_cluster import write_ray_scripts
from llmzero_hpc.errors import INFRASTRUCTURE_EXIT_CODES, ClusterError, ConfigurationError, LLMZeroError, StorageError
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from pathlib import Path

FAILS = "print('error: old news'); print('error: the disk is full'); print('free some'); raise SystemExit({})"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (StorageError.exit_code, "infrastructure_error"),
        (ClusterError.exit_code, "infrastructure_error"),
        (ConfigurationError.exit_code, "error"),
        (1, "error"),
        (0, "completed"),
    ],
)
def test_the_exit_code_says_whose_fault_it_was_and_the_log_why(tmp_path: Path, code: int, outcome: str) -> None:
    wanted = request(tmp_path, "lz-a-0-1", FAILS.format(code))
    assert started(wanted).wait() == code
    marker = marker_of(wanted)
    assert marker is not None
    assert (marker.exit_code, marker.outcome) == (code, outcome)
    assert marker.problem == ("the disk is full" if code else "")


def test_only_what_another_time_may_mend_counts_as_infrastructure() -> None:
    kinds = {kind for kind in LLMZeroError.__subclasses__() if kind.exit_code in INFRASTRUCTURE_EXIT_CODES}
    assert kinds == {StorageError, ClusterError}


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGTERM])
def test_a_command_that_others_killed_has_not_failed(tmp_path: Path, code: int) -> None:
    wanted = request(tmp_path, "lz-a-0-1", f"import os; os.kill(os.getpid(), {-code})")
    assert started(wanted).wait() == 128 - code
    marker = marker_of(wanted)
    assert marker is not None
    assert (marker.outcome, marker.problem) == ("terminated", "")


def test_a_rerun_is_not_told_what_an_earlier_run_said(tmp_path: Path) -> None:
    wanted = request(tmp_path, "lz-a-0-1", "raise SystemExit(1)")
    AttemptDirectory(wanted.directory).trainer_log.write_text("error: of the run before\n")
    assert started(wanted, SLURM_RESTART_COUNT="1").wait() == 1
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.problem == ""


def test_the_last_error_is_one_line_of_bearable_length(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    assert last_error(log, 0) == ""
    log.write_bytes(b"no error: here\nerror: first\n\xff\nerror: " + b"x" * 5000 + b"\nnext step\n" + b"y" * 1000)
    assert last_error(log, 0) == "x" * 600
    assert last_error(log, log.stat().st_size) == ""


def test_a_command_whose_ray_has_died_is_ended_and_blames_ray(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    # As much of Ray as the job sees: a process in the foreground, and where it listens.
    (own / "ray_head.sh").write_text(
        'mkdir -p "$LLMZERO_RAY_FOLDER"; echo 127.0.0.1:1 > "$LLMZERO_RAY_FOLDER/ray_current_cluster"\n'
        f'while [ ! -e "{tmp_path}/die" ]; do sleep .05; done; exit 1\n'
    )
    wanted = request(tmp_path, "lz-a-0-1", "import time; print('waits', flush=True); time.sleep(600)")
    scripts = write_ray_scripts(AttemptDirectory(wanted.directory).submission, 1, own)
    job = started(wanted, {"ray_scripts": scripts})
    until(lambda: "waits" in log_of(wanted), "the command")
    (tmp_path / "die").touch()
    assert job.wait() == 128 + signal.SIGTERM
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "infrastructure_error"
    assert marker.problem.startswith("Ray has ended on ")


def test_a_ray_that_does_not_start_is_the_infrastructures_fault(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "ray_head.sh").write_text("echo no licence for this; exit 3")
    wanted = request(tmp_path, "lz-a-0-1", "print('never')")
    scripts = write_ray_scripts(AttemptDirectory(wanted.directory).submission, 1, own)
    assert started(wanted, {"ray_scripts": scripts}).wait() == os.EX_UNAVAILABLE
    marker = marker_of(wanted)
    assert marker is not None
    assert marker.outcome == "infrastructure_error"
    assert "no licence for this" in marker.problem
