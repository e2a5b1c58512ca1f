"""What the doctor makes of machines and file systems that are not here."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from llmzero_hpc import __version__
from llmzero_hpc.cluster import doctor_storage
from llmzero_hpc.cluster.doctor_finding import Finding, Patient, Verdict
from llmzero_hpc.cluster.doctor_job import judged
from llmzero_hpc.cluster.doctor_login import minutes_of
from llmzero_hpc.cluster.doctor_probe import MachineReport
from llmzero_hpc.cluster.doctor_storage import storage_findings
from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.cluster.slurm_refusals import blamed
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.sections import ChainsTask, SlurmClusterConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

GOOD = MachineReport(
    host="node1",
    word="abc",
    python="/venv/bin/python 3.12.1",
    version=__version__,
    gpus=8,
    driver_problem="",
    cuda_devices=8,
    temporary_folder="/local/llmzero-7",
    temporary_free_gb=500.0,
    temporary_problem="",
    network_problem="",
)
PATIENT = Patient(
    ClusterProfile(nodes=2, gpus_per_node=8),
    SlurmClusterConfig(kind="slurm"),
    Path("/state"),
    SearchConfig(name="s", model="m", task=ChainsTask()),
)


def by_check(findings: Iterable[Finding]) -> dict[str, Finding]:
    found = {finding.check: finding for finding in findings}
    assert all(one.next_step for one in found.values() if one.verdict in {Verdict.WARNING, Verdict.FAILED})
    return found


def test_good_machines() -> None:
    found = by_check(judged(PATIENT, [GOOD, replace(GOOD, host="node2")], "abc"))
    assert {one.verdict for one in found.values()} == {Verdict.OK}
    assert list(found) == ["shared folder", "python", "search", "gpus", "temporary folder", "network"]


@pytest.mark.parametrize(
    ("change", "check", "verdict", "message"),
    [
        ({"word": "old"}, "shared folder", "failed", "node1, node2 read something else than was written here"),
        ({"version": "0.0.1"}, "python", "failed", "node2 has llmzero-hpc 0.0.1, this machine"),
        ({"search_problem": ("model: there is no folder /m", "")}, "search", "failed", "on node2: model: there is no"),
        ({"gpus": 7}, "gpus", "failed", "node2 shows 7 GPUs to the job, the profile asks for 8"),
        ({"driver_problem": "nvidia-smi: no devices"}, "gpus", "failed", "node2: nvidia-smi: no devices"),
        ({"cuda_devices": 0}, "gpus", "failed", "torch sees 0 of 8 GPUs on node2"),
        ({"cuda_devices": None}, "gpus", "ok", "8 on each machine"),
        ({"temporary_problem": "/local: Permission denied"}, "temporary folder", "failed", "node2: /local: Permission"),
        ({"temporary_free_gb": 0.2}, "temporary folder", "warning", "/local/llmzero-7 has 0.2 GB free on node2"),
        ({"network_problem": "10.0.0.1 cannot be reached"}, "network", "failed", "node2: 10.0.0.1 cannot be reached"),
    ],
)
def test_a_machine_that_is_not_as_the_others(change: dict[str, Any], check: str, verdict: str, message: str) -> None:
    found = by_check(judged(PATIENT, [GOOD, replace(GOOD, host="node2", **change)], "abc"))
    assert found[check].verdict == verdict
    assert found[check].message.startswith(message)
    assert {one.verdict for name, one in found.items() if name != check} == {Verdict.OK}


def test_without_a_search_or_gpus() -> None:
    found = by_check(judged(replace(PATIENT, profile=ClusterProfile(), config=None), [GOOD], "abc"))
    assert found["search"].verdict is Verdict.SKIPPED
    assert not {"gpus", "network"} & set(found)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("1-00:00:00", 1440), ("02:30:30", 150.5), ("UNLIMITED", None), ("NONE", None), ("", None), ("7-12:00:00", 10800)],
)
def test_times_as_slurm_writes_them(text: str, minutes: float | None) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("words", "profile", "options"),
    [
        (
            "Invalid account or account/partition combination specified",
            {"account": "a", "partition": "p"},
            "account: a, partition: p",
        ),
        ("Invalid account or account/partition combination specified", {}, "no account or partition"),
        ("Invalid qos specification", {"qos": "q", "partition": "p"}, "qos: q"),
        ("unrecognized option '--hints'", {"sbatch_options": {"hint": "x"}}, "sbatch_options.hint: x"),
        ("Job violates accounting/QOS policy (job submit limit)", {"account": "a", "nodes": 9}, "account: a, nodes: 9"),
        ("Requested time limit is invalid", {"time_limit_minutes": 9e9}, "time_limit_minutes: 9e+09"),
        ("something else altogether", {"account": "a"}, ""),
    ],
)
def test_what_slurms_words_are_about(words: str, profile: dict[str, Any], options: str) -> None:
    assert blamed(words, ClusterProfile(**profile)) == options


def test_a_good_folder(tmp_path: Path) -> None:
    found = by_check(storage_findings(tmp_path / "new", 0.0, shared=False))
    assert {found[name].verdict for name in ("state folder", "file locks", "clock", "space")} == {Verdict.OK}
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    found = by_check(storage_findings(tmp_path, 0.0, shared=False))
    assert found["file locks"].verdict is Verdict.WARNING
    assert "scratch" in found["file locks"].next_step


def test_a_full_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    assert by_check(storage_findings(tmp_path, 2.0, shared=False))["space"].verdict is Verdict.FAILED
    assert by_check(storage_findings(tmp_path, 0.5, shared=False))["space"].verdict is Verdict.OK
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=10**6, f_favail=10))
    assert "room for 10 files only" in by_check(storage_findings(tmp_path, 0.5, shared=False))["space"].message


def test_a_clock_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = doctor_storage.time.time()
    monkeypatch.setattr(doctor_storage.time, "time", lambda: now + 60)
    found = by_check(storage_findings(tmp_path, 0.0, shared=False))
    assert found["clock"].verdict is Verdict.WARNING
    (seconds,) = re.findall(r"clock is (-\d+) s off", found["clock"].message)
    assert -60 <= int(seconds) <= -30, "the probe is written while the clock stands still"


@pytest.mark.parametrize(
    ("answer", "verdict", "message"),
    [
        ("/home 102* 100 100 6days 5 0 0", Verdict.WARNING, "exceeded: /home 102* 100 100 6days 5 0 0"),
        ("/home 50 100 100 - 5 0 0", Verdict.OK, "not exceeded"),
    ],
)
def test_a_quota(answer: str, verdict: Verdict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "quota"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    found = by_check(storage_findings(tmp_path / "state", 0.0, shared=False))
    assert (found["quota"].verdict, found["quota"].message) == (verdict, message)


def test_a_folder_that_other_machines_do_not_see() -> None:
    shm = Path("/dev/shm")  # noqa: S108 - a tmpfs everywhere
    if not os.access(shm, os.W_OK):
        pytest.skip("no /dev/shm here")
    folder = Path(tempfile.mkdtemp(prefix="llmzero-", dir=shm))
    found = by_check(storage_findings(folder, 0.0, shared=True))
    folder.rmdir()
    assert found["file system"].verdict is Verdict.WARNING
    assert "is on tmpfs" in found["file system"].message
