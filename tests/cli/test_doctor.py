"""`doctor` on a real Slurm: what works is proven, and whatever does not is named, with what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cluster_options import Account, ClusterOptions
from command_line import PATIENCE, CommandLine, started, wait_for

from llmzero_hpc.cluster.slurm_commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from slurm_cluster import SlurmTestCluster
    from slurm_fixtures import StartSlurm


@pytest.fixture(scope="module")
def lab(start_slurm: StartSlurm) -> Iterator[SlurmTestCluster]:
    """A cluster that checks accounts."""
    cluster = start_slurm(ClusterOptions(accounts=(Account("lab"),)))
    with pytest.MonkeyPatch.context() as patch:
        for key, value in cluster.environment.items():
            patch.setenv(key, value)
        yield cluster


class Doctor:
    """The command, with profiles and searches of a test's own."""

    def __init__(self, command: CommandLine, cluster: SlurmTestCluster) -> None:
        self.command, self.cluster, self.folder = command, cluster, command.folder

    def profile(self, **options: Any) -> None:
        (self.folder / "profiles.yaml").write_text(yaml.safe_dump({"big": options}), encoding="utf-8")

    def __call__(self, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
        """Exit code, and the checks by name."""
        said = self.command("doctor", *arguments, "--profile", "big", "--profiles", "profiles.yaml", "--json")
        content = json.loads(said.out)
        checks = {check["check"]: check for check in content["checks"]}
        assert content["ok"] == all(check["verdict"] != "failed" for check in checks.values()) == (said.code == 0)
        assert all(check["next_step"] for check in checks.values() if check["verdict"] in {"failed", "warning"})
        assert "\n" not in "".join(check["message"] + check["next_step"] for check in checks.values())
        return said.code, checks

    def nothing_is_left(self) -> bool:
        """No job in the queue."""
        return not self.cluster.jobs_in_queue()


@pytest.fixture
def doctor(command: CommandLine, lab: SlurmTestCluster) -> Doctor:
    lab.clear()
    return Doctor(command, lab)


def verdicts(checks: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: check["verdict"] for name, check in checks.items()}


HEALTHY = {"account": "lab", "partition": "low", "nodes": 2, "gpus_per_node": 2, "gpu_type": "a100", "cpus_per_node": 2}


def test_a_healthy_profile(doctor: Doctor, lab: SlurmTestCluster, tmp_path: Path) -> None:
    doctor.profile(**HEALTHY, node_local=str(tmp_path / "local"), setup=["echo ready"])
    doctor.command.write()
    code, checks = doctor("search.yaml")
    assert code == 0, checks
    # the tests' own folder may be on a file system of one machine
    assert checks.pop("file system")["verdict"] in {"ok", "warning"}
    checks.pop("quota", None)
    assert set(verdicts(checks).values()) == {"ok"}, checks
    assert set(checks) == {
        *("search.yaml", "state folder", "file locks", "clock", "space", "commands", "slurmctld", "accounting"),
        *("partition", "setup", "submission", "shared folder", "python", "search", "gpus", "temporary folder"),
        "network",
    }
    assert "on node[1-2] of partition low" in checks["submission"]["message"]
    assert checks["gpus"]["message"] == "2 on each machine"
    assert "is read on node1, node2, and theirs here" in checks["shared folder"]["message"]
    assert checks["temporary folder"]["message"].startswith(f"{tmp_path}/local/llmzero-")
    assert list((doctor.folder / "state").iterdir()) == []
    lab.wait_for(doctor.nothing_is_left, "an empty queue")


def test_for_people(doctor: Doctor) -> None:
    doctor.profile(partition="low")
    said = doctor.command("doctor", "--quick", "--profile", "big", "--profiles", "profiles.yaml")
    assert said.code == 0
    lines = said.out.splitlines()
    assert "ok       commands         slurm" in said.out
    assert lines[-1].startswith("skipped  job              left out by --quick")
    assert said.err == ""


def test_what_init_writes_works_at_once(doctor: Doctor) -> None:
    said = doctor.command("init", "--slurm", "new")
    assert said.code == 0
    # on this cluster, jobs need no more than the user's default account
    for step in (["doctor", "new/search.yaml", "--quick"], ["run", "new/search.yaml", "--dry-run"]):
        assert f"llmzero-hpc {step[0]} new/search.yaml" in said.out
        assert doctor.command(*step).code == 0
    assert "llmzero-hpc start new/search.yaml" in said.out


BAD_PROFILES: list[tuple[dict[str, Any], str, str]] = [
    ({"partition": "nowhere"}, "partition: nowhere: Slurm says: invalid partition specified: nowhere", "submission"),
    ({"account": "nobody"}, "account: nobody: Slurm says: ", "submission"),
    ({"qos": "platinum"}, "qos: platinum: Slurm says: ", "submission"),
    ({"constraint": "h100"}, "constraint: h100: Slurm says: ", "submission"),
    ({"reservation": "nothing"}, "reservation: nothing: Slurm says: ", "submission"),
    ({"gpus_per_node": 9}, "gpus_per_node: 9: Slurm says: ", "submission"),
    ({"gpus_per_node": 9, "gpu_request": "gpus-per-node"}, "gpus_per_node: 9: Slurm says: ", "submission"),
    ({"gpus_per_node": 1, "gpu_type": "h100"}, "gpus_per_node: 1, gpu_type: h100: Slurm says: ", "submission"),
    ({"memory_gb_per_node": 2000}, "memory_gb_per_node: 2000: Slurm says: ", "submission"),
    ({"cpus_per_node": 65}, "cpus_per_node: 65: Slurm says: ", "submission"),
    ({"nodelist": "node9"}, "nodelist: node9: Slurm says: ", "submission"),
    ({"exclude": "node9"}, "exclude: node9: Slurm says: ", "submission"),
    ({"sbatch_options": {"licences": "x:1"}}, "sbatch_options.licences: x:1: Slurm says: ", "submission"),
    ({"sbatch_options": {"licenses": "x:1"}}, "sbatch_options.licenses: x:1: Slurm says: ", "submission"),
    ({"sbatch_options": {"mail-type": "NEVER"}}, "sbatch_options.mail-type: NEVER: Slurm says: ", "submission"),
    ({"sbatch_options": {"begin": "some day"}}, "sbatch_options.begin: some day: Slurm says: ", "submission"),
    ({"nodes": 5}, "nodes: 5, and partition low has 4", "partition"),
    ({"nodes": 3, "partition": "tiny"}, "nodes: 3, and partition tiny lets a job have 2", "partition"),
    ({"time_limit_minutes": 120, "partition": "tiny"}, "time_limit_minutes: 120, and partition tiny lets", "partition"),
    ({"partition": "closed"}, "partition: closed is DOWN", "partition"),
    ({"setup": ["if true; then"]}, "setup: line 2: syntax error: unexpected end of file", "setup"),
]


def test_init_with_options_that_exclude_each_other(command: CommandLine) -> None:
    said = command.refused("init", "--slurm", "--own-data")
    assert said.code == 3
    assert "--own-data and --slurm exclude each other" in said.err


@pytest.fixture(scope="module")
def partitions(lab: SlurmTestCluster) -> None:
    lab.run("scontrol", "create", "PartitionName=tiny", "Nodes=node[1-3]", "MaxNodes=2", "MaxTime=1:00:00")
    lab.run("scontrol", "create", "PartitionName=closed", "Nodes=node1", "State=DOWN")


def jobs_ever(lab: SlurmTestCluster) -> set[str]:
    """All jobs that slurmctld remembers, ended ones, too."""
    return set(lab.run("squeue", "--noheader", "--states=all", "--format=%A").split())


@pytest.mark.parametrize(("options", "message", "check"), BAD_PROFILES, ids=lambda value: str(value)[:50])
@pytest.mark.usefixtures("partitions")
def test_profiles_that_slurm_would_not_run(
    options: dict[str, Any], message: str, check: str, doctor: Doctor, lab: SlurmTestCluster
) -> None:
    doctor.profile(**options)
    before = jobs_ever(lab)
    code, checks = doctor()
    assert code == 13
    assert verdicts(checks)[check] == "failed"
    assert f"profile big: {message}" in checks[check]["message"], checks[check]
    assert verdicts(checks)["job"] == "skipped"
    assert jobs_ever(lab) <= before, "nothing was submitted; slurmctld may have forgotten old ones"


def test_a_value_that_slurm_never_sees(doctor: Doctor, lab: SlurmTestCluster) -> None:
    before = jobs_ever(lab)
    for value in ("low;reboot", "low\nhigh", "$(reboot)"):
        doctor.profile(partition=value)
        said = doctor.command.refused("doctor", "--profile", "big", "--profiles", "profiles.yaml")
        assert said.code == 3
        assert "profile big: partition: " in said.err
    assert jobs_ever(lab) <= before, "nothing was submitted; slurmctld may have forgotten old ones"


@pytest.mark.parametrize(
    ("options", "message", "advice"),
    [
        ({"setup": ["exit 7"]}, "failed (failed: ", "holds its logs"),
        ({"modules": ["nowhere/1.0"]}, "llmzero-hpc: module nowhere/1.0 cannot be loaded", "check modules"),
        ({"node_local": "$NOWHERE/tmp"}, "NOWHERE: parameter null or not set", "check scratch and node_local"),
        ({"node_local": "/dev/null"}, "/dev/null", "check"),
        ({"virtual_environment": "venv"}, "venv/bin/python", "check virtual_environment"),
        ({"apptainer_image": "x.sif"}, "apptainer", "check apptainer_image"),
        ({"virtual_environment": "bare"}, "No module named 'submitit'", "install 'llmzero-hpc[slurm]'"),
    ],
    ids=str,
)
def test_jobs_that_fail(
    options: dict[str, Any], message: str, advice: str, doctor: Doctor, lab: SlurmTestCluster
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", doctor.folder / "bare"], check=True)
    doctor.profile(partition="low", **options)
    code, checks = doctor()
    assert code == 13
    assert verdicts(checks)["job"] == "failed"
    assert message in checks["job"]["message"]
    assert advice in checks["job"]["next_step"]
    lab.wait_for(doctor.nothing_is_left, "an empty queue")


def test_logs_of_a_failed_job_are_kept_for_a_day(doctor: Doctor) -> None:
    doctor.profile(setup=["exit 7"])
    doctor()
    (kept,) = (doctor.folder / "state").iterdir()
    doctor.profile()
    assert doctor()[0] == 0
    assert list((doctor.folder / "state").iterdir()) == [kept]
    os.utime(kept, (0, 0))
    assert doctor()[0] == 0
    assert list((doctor.folder / "state").iterdir()) == []


def test_a_machine_that_shows_no_gpus(doctor: Doctor) -> None:
    # as a site does that gives a step fewer GPUs than its job
    doctor.profile(partition="low", gpus_per_node=2, srun_options=["--gres=gpu:1"])
    code, checks = doctor()
    assert code == 13
    assert "shows 1 GPUs to the job, the profile asks for 2" in checks["gpus"]["message"]
    assert "gpu_request" in checks["gpus"]["next_step"]


def test_a_busy_cluster(doctor: Doctor, lab: SlurmTestCluster) -> None:
    blocker = lab.run(
        "sbatch", "--parsable", "--exclusive", "--nodes=4", "--output=/dev/null", "--wrap=sleep 600"
    ).strip()
    lab.wait_for(lambda: any(job.state == "RUNNING" for job in lab.jobs_in_queue()), "the blocker")
    doctor.profile(partition="low")
    code, checks = doctor("--wait", "0")
    assert code == 0
    assert verdicts(checks)["job"] == "warning"
    assert "did not start within 0 minutes" in checks["job"]["message"]
    assert [job.job_id for job in lab.jobs_in_queue()] == [blocker]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_doctor_that_is_stopped_leaves_no_job(number: signal.Signals, doctor: Doctor, lab: SlurmTestCluster) -> None:
    doctor.profile(partition="low", setup=["sleep 600"])
    arguments = ("doctor", "--profile", "big", "--profiles", "profiles.yaml")
    with started(*arguments, folder=doctor.folder) as process:
        wait_for(lambda: bool(lab.jobs_in_queue()), "a job")
        process.send_signal(number)
        process.send_signal(number)
        _, complaint = process.communicate(timeout=PATIENCE)
        assert (process.returncode, complaint) == (130, "")
    lab.wait_for(doctor.nothing_is_left, "an empty queue")


def test_without_slurmctld(doctor: Doctor, lab: SlurmTestCluster) -> None:
    lab.stop("ctld")
    doctor.profile()
    code, checks = doctor()
    assert code == 13
    assert verdicts(checks)["slurmctld"] == "failed"
    assert "wait until Slurm answers" in checks["slurmctld"]["next_step"]
    assert verdicts(checks)["job"] == "skipped"


def test_without_accounting(doctor: Doctor, lab: SlurmTestCluster) -> None:
    lab.stop("dbd")
    doctor.profile(account="lab")
    code, checks = doctor("--quick")
    assert code == 0
    assert verdicts(checks)["accounting"] == "warning"
    assert "the controller's own figures" in checks["accounting"]["message"]


def test_machines_that_are_down(doctor: Doctor, lab: SlurmTestCluster) -> None:
    lab.run("scontrol", "update", "NodeName=node[2-4]", "State=DRAIN", "Reason=test")
    doctor.profile(nodes=2, partition="low")
    code, checks = doctor("--quick")
    assert code == 0, checks
    assert verdicts(checks)["partition"] == "warning"
    assert "low: 1 machines up, a job needs 2" in checks["partition"]["message"]
    assert verdicts(checks)["submission"] == "warning"


class Endpoint(BaseHTTPRequestHandler):
    """A language model that wants the key `good`."""

    def do_GET(self) -> None:
        good = self.path == "/v1/models" and self.headers["Authorization"] == "Bearer good"
        self.send_response(200 if good else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("key", "verdict", "message"),
    [
        ("good", "ok", "answers"),
        ("bad", "failed", "refuses the key (HTTP 401)"),
        (None, "failed", "DOCTOR_KEY (agents.api_key_env) is not set"),
    ],
)
def test_a_language_model(
    key: str | None, verdict: str, message: str, endpoint: str, command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCTOR_KEY", raising=False)
    if key:
        monkeypatch.setenv("DOCTOR_KEY", key)
    command.write(agents={"base_url": endpoint, "model": "m", "api_key_env": "DOCTOR_KEY"})
    said = command("doctor", "search.yaml", "--json")
    (check,) = [check for check in json.loads(said.out)["checks"] if check["check"] == "endpoint"]
    assert check["verdict"] == verdict
    assert message in check["message"]
    assert said.code == (0 if verdict == "ok" else 13)


def test_a_language_model_that_is_not_there(command: CommandLine) -> None:
    command.write(agents={"base_url": "http://127.0.0.1:9/v1", "model": "m"})
    said = command.refused("doctor", "search.yaml")
    assert said.code == 13
    assert "127.0.0.1:9/v1 cannot be reached from here" in said.out


def test_a_search_on_this_machine(command: CommandLine) -> None:
    command.write()
    said = command("doctor", "search.yaml")
    assert said.code == 0
    assert said.out.startswith("ok       search.yaml      packages, model, data and reward are fine here; 512")
    assert "submission" not in said.out
    command.write(housekeeping={"free_gb": 1e6})
    said = command.refused("doctor", "search.yaml")
    assert said.code == 13
    assert "below housekeeping.free_gb (1e+06)" in said.out
    assert said.err.splitlines()[0] == "error: 1 check failed: space"


def test_a_state_folder_that_cannot_be_used(command: CommandLine) -> None:
    command.write()
    (command.folder / "file").touch()
    said = command.refused("doctor", "search.yaml", "--state", "file/state")
    assert said.code == 13
    assert "failed   state folder" in said.out


def test_a_machine_without_slurm(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(command.folder))
    (command.folder / "profiles.yaml").write_text("default: {}")
    said = command.refused("doctor", "--profiles", "profiles.yaml")
    assert said.code == 13
    assert f"failed   commands         {', '.join(COMMANDS)} not found" in said.out
