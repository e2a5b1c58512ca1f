"""The controller on real hosts: it moves between a login node and jobs of its own, and nothing is lost on the way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from disturbed_search import ITERATIONS, settings, undisturbed
from searches import CPU_PROFILE, decisions, on_slurm, rehearsal

from llmzero_hpc import shipped
from llmzero_hpc.store.daemon_file import read_heartbeat
from llmzero_hpc.store.lease import holder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from slurm_cluster import SlurmTestCluster

    from llmzero_hpc.store.search_directory import SearchDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PATIENCE = 600.0


class Hosted:
    """A search on a cluster, driven by commands that a person types."""

    def __init__(self, cluster: SlurmTestCluster, folder: Path, *, step_seconds: float = 0.3) -> None:
        quick = {"grace_seconds": 5, "submit_timeout_seconds": 30, "accounting_seconds": 10}
        self.cluster = cluster
        self.directory: SearchDirectory = rehearsal(
            folder / "search", on_slurm(folder, CPU_PROFILE, **quick), **settings(ITERATIONS, step_seconds)
        )
        self.root = str(self.directory.root)

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """What a command says."""
        done = subprocess.run(
            [sys.executable, "-m", "llmzero_hpc.cli.main", *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def log(self) -> str:
        """What controllers without a terminal printed."""
        path = self.directory.root / "controller.log"
        return path.read_text() if path.exists() else ""

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """Until it is so."""
        try:
            return self.cluster.wait_for(condition, what, PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from error

    def controller_jobs(self) -> list[str]:
        """Ids of the controller's jobs in the queue."""
        own = f"{self.directory.record.token}-controller"
        return [job.job_id for job in self.cluster.jobs_in_queue() if job.name.endswith(own)]

    def phase_jobs(self) -> list[str]:
        """Ids of the phases' jobs in the queue."""
        own = f"-{self.directory.record.token}-"
        mine = self.controller_jobs()
        return [j.job_id for j in self.cluster.jobs_in_queue() if own in j.name and j.job_id not in mine]

    def wait_for_checkpoint(self, node: int) -> None:
        """Until a phase is in the middle."""

        def reached() -> bool:
            tree = self.directory.read_tree()
            return node < len(tree) and bool(tree[node].checkpoints)

        self.wait_for(reached, f"a checkpoint of phase {node}")

    def wait_for_beat_in_job(self, job_id: str, ticks: int = 1) -> None:
        """Until the controller has ticked in a job."""

        def beats() -> bool:
            heartbeat = read_heartbeat(self.directory)
            return heartbeat is not None and heartbeat.job_id == job_id and heartbeat.ticks >= ticks

        self.wait_for(beats, f"a heartbeat from job {job_id}")

    def assert_phase_as_if_undisturbed(self, node: int, attempts: int) -> None:
        """Wait for the end of a phase, and look what it came to."""

        def is_over() -> bool:
            tree = self.directory.read_tree()
            return node < len(tree) and tree[node].status.is_final

        self.wait_for(is_over, f"the end of phase {node}")
        tree = self.directory.read_tree()
        assert decisions(tree)[node] == decisions(undisturbed(ITERATIONS))[node]
        assert len(tree[node].attempts) == attempts

    def assert_finished_as_if_undisturbed(self) -> None:
        """Wait for the end of the search, and look what it came to."""
        self.wait_for(lambda: "finished" in self("status", self.root).splitlines()[0], "the end of the search")
        tree = self.directory.read_tree()
        assert decisions(tree) == decisions(undisturbed(ITERATIONS))
        submitted = [attempt.name for node in tree for attempt in node.attempts]
        expected = sorted(
            (attempt.name, attempt.job.job_id) for node in tree for attempt in node.attempts if attempt.job
        )

        def booked() -> list[tuple[str, str]]:
            rows = self.cluster.sacct_rows()
            return sorted({(row.name, row.job_id) for row in rows if f"-{self.directory.record.token}-00" in row.name})

        self.wait_for(lambda: len(booked()) >= len(expected), "the books")
        assert booked() == expected, "each attempt is one job"
        assert len(set(submitted)) == len(submitted)


@pytest.fixture
def hosted(request: pytest.FixtureRequest, clean_slurm: SlurmTestCluster, tmp_path: Path) -> Iterator[Hosted]:
    undisturbed(ITERATIONS)
    search = Hosted(clean_slurm, tmp_path, step_seconds=getattr(request, "param", 0.3))
    yield search
    search("stop", search.root, "--cancel-jobs")


with_long_phases = pytest.mark.parametrize("hosted", [4.0], indirect=True, ids=[""])


def test_a_search_moves_from_a_login_node_into_a_job_and_back(hosted: Hosted) -> None:
    said = hosted("start", hosted.root, "--on", "login")
    pid = int(re.findall(r"runs as process (\d+) on", said)[0])
    hosted.wait_for_checkpoint(0)
    assert "is driven already" in hosted("start", hosted.root, "--on", "login")

    said = hosted("start", hosted.root, "--on", "slurm")
    assert f"Stopped process {pid} on" in said
    (job,) = hosted.controller_jobs()
    assert f"is job {job}" in said
    hosted.wait_for_beat_in_job(job)
    assert f"job {job})" in hosted("status", hosted.root).splitlines()[0]
    assert f"in job {job}." in hosted("start", hosted.root)
    assert "is driven already" in hosted("start", hosted.root, "--on", "slurm")
    assert hosted.controller_jobs() == [job]

    hosted.wait_for_checkpoint(1)
    said = hosted("start", hosted.root, "--on", "login")
    assert re.search(rf"Stopped process \d+ on \S+ in job {job};", said)
    hosted.wait_for(lambda: not hosted.controller_jobs(), "the end of the job")
    hosted.assert_finished_as_if_undisturbed()
    states = {row.state for row in hosted.cluster.sacct_rows() if row.job_id == job}
    assert states == {"COMPLETED"}


@pytest.mark.parametrize("how", ["scontrol requeue", "time limit"])
def test_a_controller_that_is_requeued_takes_its_lease_again(hosted: Hosted, how: str) -> None:
    hosted("start", hosted.root, "--on", "slurm")
    (job,) = hosted.controller_jobs()
    hosted.wait_for_beat_in_job(job, ticks=2)
    first = holder_of(hosted.directory)
    assert first is not None
    if how == "time limit":
        # As Slurm does when --signal is due; no limit is shorter than a minute.
        hosted.cluster.run("scancel", "--batch", "--signal=USR1", job)
    else:
        hosted.cluster.run("scontrol", "requeue", job)

    def holds_again() -> bool:
        holder = holder_of(hosted.directory)
        return holder is not None and holder.process is not None and holder.job is not None and holder.job.restarts == 1

    hosted.wait_for(holds_again, "the requeued job's lease")
    assert hosted.controller_jobs() == [job]
    hosted.assert_finished_as_if_undisturbed()


# the job waits for Slurm to end it, which takes KillWait: as long as the phase has left then, at least
@pytest.mark.parametrize("hosted", [10.0], indirect=True, ids=[""])
def test_a_controller_whose_job_is_cancelled_leaves_its_phases_running(hosted: Hosted) -> None:
    hosted("start", hosted.root, "--on", "slurm")
    (job,) = hosted.controller_jobs()
    hosted.wait_for_checkpoint(0)
    hosted.cluster.run("scancel", job)
    hosted.wait_for(lambda: not hosted.controller_jobs(), "the end of the job")
    assert hosted.phase_jobs()
    assert "ends: interrupted" in hosted.log
    assert "controller gone" in hosted("status", hosted.root)
    hosted("start", hosted.root, "--on", "login")
    hosted.assert_phase_as_if_undisturbed(0, attempts=1)


def test_a_job_that_waits_is_there_once_and_can_be_taken_back(hosted: Hosted) -> None:
    hosted.cluster.run("scontrol", "update", "PartitionName=low", "State=DOWN")
    try:
        with ThreadPoolExecutor() as threads:
            command = [sys.executable, "-m", "llmzero_hpc.cli.main", "start", hosted.root, "--on", "slurm"]
            started = list(threads.map(lambda _: subprocess.run(command, capture_output=True, check=False), range(3)))
        assert {done.returncode for done in started} <= {0, 5}
        assert 0 in {done.returncode for done in started}
        (job,) = hosted.controller_jobs()
        for arguments in ((), ("--on", "slurm")):
            said = hosted("start", hosted.root, *arguments)
            assert f"waits in the queue already, as job {job} (" in said
        assert f"waits in the queue as job {job}" in hosted("status", hosted.root)
        assert f"Took the controller's job {job} out of the queue." in hosted("stop", hosted.root)
        assert hosted.controller_jobs() == []
        assert "nothing to stop" in hosted("stop", hosted.root)
        hosted("start", hosted.root, "--on", "slurm")
        (job,) = hosted.controller_jobs()
        said = hosted("start", hosted.root, "--on", "login")
        assert f"Took the controller's job {job} out of the queue." in said
        assert hosted.controller_jobs() == []
    finally:
        hosted.cluster.run("scontrol", "update", "PartitionName=low", "State=UP")
    hosted.assert_finished_as_if_undisturbed()


def test_the_script_is_a_plain_one(hosted: Hosted, tmp_path: Path) -> None:
    script = shipped.path("slurm_templates", "controller.sbatch")
    output = f"--output={tmp_path / 'slurm.out'}"
    job = hosted.cluster.run("sbatch", "--parsable", output, str(script), hosted.root, sys.executable).strip()
    hosted.wait_for_beat_in_job(job)
    said = hosted("stop", hosted.root)
    assert "has stopped; running phases go on." in said
    hosted.wait_for(lambda: job not in [j.job_id for j in hosted.cluster.jobs_in_queue()], "the end of the job")
    assert "stopped on request" in (tmp_path / "slurm.out").read_text()
    without = hosted.cluster.run("sbatch", "--parsable", output, str(script)).strip()
    hosted.wait_for(lambda: without not in [j.job_id for j in hosted.cluster.jobs_in_queue()], "the end of the job")
    assert "usage: sbatch controller.sbatch SEARCH" in (tmp_path / "slurm.out").read_text()


@with_long_phases
@pytest.mark.parametrize("alive", [True, False])
def test_stopping_with_the_jobs_leaves_phases_that_go_on(hosted: Hosted, alive: bool) -> None:
    hosted("start", hosted.root, "--on", "login")
    hosted.wait_for_checkpoint(0)
    if not alive:
        hosted("stop", hosted.root)
        assert hosted.phase_jobs()
    assert "cancelled" in hosted("stop", hosted.root, "--cancel-jobs")
    hosted.wait_for(lambda: not hosted.phase_jobs(), "the end of the jobs")
    tree = hosted.directory.read_tree()
    assert not tree[0].status.is_final
    hosted("start", hosted.root, "--on", "login")
    hosted.assert_phase_as_if_undisturbed(0, attempts=2)


def test_the_line_for_cron_ticks_in_an_empty_environment(hosted: Hosted) -> None:
    said = hosted("start", hosted.root, "--on", "cron")
    (line,) = [line for line in said.splitlines() if line.startswith("*/5 * * * * ")]
    command = line.removeprefix("*/5 * * * * ").replace(r"\%", "%")
    for ticks in range(1, 3):
        done = subprocess.run(["env", "-i", "sh", "-c", command], capture_output=True, text=True, check=False, cwd="/")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), hosted.log
        hosted.wait_for(lambda: hosted.directory.read_tree()[0].attempts, f"tick {ticks}")
    assert len(hosted.phase_jobs()) == 1
    assert "by cron" in hosted("status", hosted.root).splitlines()[0]
    hosted("start", hosted.root, "--on", "login")
    before = hosted.log
    subprocess.run(["env", "-i", "sh", "-c", command], check=True, cwd="/")
    assert before in hosted.log
    assert "error" not in hosted.log
    hosted.assert_finished_as_if_undisturbed()


def test_shellcheck_has_nothing_to_say() -> None:
    script = shipped.path("slurm_templates", "controller.sbatch")
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
