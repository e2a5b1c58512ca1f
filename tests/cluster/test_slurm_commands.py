"""Slurm's commands as programs that fail, hang, or are not there."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import psutil
import pytest
from cluster_contract import until
from slurm_programs import DOWN, Clock, Programs

from llmzero_hpc.cluster.slurm_commands import SlurmCommands, is_silence
from llmzero_hpc.errors import ClusterError, MissingDependencyError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    found = Programs(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{found.folder}:/usr/bin:/bin")
    return found


def test_an_outage_of_an_hour_costs_few_calls_and_is_told_in_slurms_words(programs: Programs) -> None:
    programs.write("squeue", DOWN)
    clock, calls = Clock(), Counter[str]()
    commands = SlurmCommands(calls, 60.0, clock)
    for tick in range(120):
        clock.now = tick * 30.0
        with pytest.raises(ClusterError, match=r"Unable to contact slurm controller \(connect failure\)"):
            commands.ask("slurmctld", "squeue")
    assert 12 <= calls["squeue"] <= 20


def test_after_an_outage_every_call_is_made_again(programs: Programs) -> None:
    programs.write("squeue", DOWN)
    clock, calls = Clock(), Counter[str]()
    commands = SlurmCommands(calls, 60.0, clock)
    with pytest.raises(ClusterError):
        commands.ask("slurmctld", "squeue")
    programs.write("squeue", "echo here")
    with pytest.raises(ClusterError, match="asked again in 10 s"):
        commands.ask("slurmctld", "squeue")
    clock.now = 11.0
    for _ in range(3):
        assert commands.ask("slurmctld", "squeue") == "here\n"
    assert calls["squeue"] == 4


def test_an_outage_of_the_accounting_is_not_one_of_the_queue(programs: Programs) -> None:
    programs.write("sacct", DOWN)
    programs.write("squeue", "echo here")
    commands = SlurmCommands(Counter(), 60.0)
    with pytest.raises(ClusterError):
        commands.ask("slurmdbd", "sacct")
    assert commands.ask("slurmctld", "squeue") == "here\n"


def test_a_command_that_hangs_is_killed_with_its_children(programs: Programs, tmp_path: Path) -> None:
    programs.write("squeue", f"echo $$ > {tmp_path}/pid; sleep 600 & wait")
    commands = SlurmCommands(Counter(), 5.0)
    with pytest.raises(ClusterError, match="squeue gave no answer within 5 s"):
        commands.ask("slurmctld", "squeue")
    group = int((tmp_path / "pid").read_text())
    until(lambda: not [pid for pid in psutil.pids() if _group(pid) == group], "the end of all that it started")


def test_commands_see_no_options_of_the_users_own(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQUEUE_PARTITION", "SACCT_FEDERATION", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "odd")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    programs.write("squeue", "env")
    seen = dict(line.split("=", 1) for line in SlurmCommands(Counter(), 60.0).ask("slurmctld", "squeue").splitlines())
    assert {key for key in seen if key.startswith("S") and "odd" in seen[key]} == set()
    assert (seen["SLURM_CONF"], seen["SLURM_TIME_FORMAT"]) == ("/etc/slurm.conf", "%s")


def test_a_machine_without_slurm_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"this machine has no Slurm: sbatch, squeue, .* not found"):
        SlurmCommands(Counter(), 60.0)


@pytest.mark.parametrize(
    "complaint",
    [
        "Batch job submission failed: Socket timed out on send/recv operation",
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "Batch job submission failed: Zero Bytes were transmitted or received",
        "Batch job submission failed: Slurm backup controller in standby mode",
        "Batch job submission failed: Connection refused",
        "Batch job submission failed: Protocol authentication error",
        "Munge encode failed: Failed to access the socket",
        "sbatch gave no answer within 60 s",
    ],
)
def test_complaints_that_leave_the_fate_open(complaint: str) -> None:
    assert is_silence(complaint)


@pytest.mark.parametrize(
    "complaint",
    [
        "Batch job submission failed: Invalid partition name specified",
        "Batch job submission failed: Requested node configuration is not available",
        "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time)",
        "Batch job submission failed: Invalid account or account/partition combination specified",
        "Batch job submission failed: Access/permission denied",
        "unrecognized option '--bogus'",
        "Invalid --time specification",
        "your project has no hours left, please contact support",
    ],
)
def test_complaints_that_are_refusals(complaint: str) -> None:
    assert not is_silence(complaint)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
    except (ProcessLookupError, psutil.NoSuchProcess):
        return None
