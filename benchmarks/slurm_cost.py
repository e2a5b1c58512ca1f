"""What a controller costs a login node, and Slurm, while jobs run; and how long GPUs wait between two phases.

    python benchmarks/slurm_cost.py watch JOBS TICKS INTERVAL FOLDER
    python benchmarks/slurm_cost.py gaps PHASES TICK_SECONDS FOLDER

Both on a real Slurm of their own on this machine (tests/slurm). The jobs that are watched sleep, under the names of
phases: what a phase does costs the login node nothing.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from probe import peak_memory
from samples import running, search_of

from llmzero_hpc.config import load_text
from llmzero_hpc.controller.creation import create
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.search.node import Job, NodeStatus
from llmzero_hpc.sections import SlurmClusterConfig

_TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(_TESTS), str(_TESTS / "slurm")]
from slurm_cluster import SlurmTestCluster, why_not_here  # noqa: E402 - it stands beside the tests

if TYPE_CHECKING:
    from llmzero_hpc.store.search_directory import SearchDirectory

_START_SECONDS = 180.0
_PROFILE = {"default": {"partition": "low", "cpus_per_node": 1, "memory_gb_per_node": 0.1, "time_limit_minutes": 60}}


@dataclass(frozen=True, slots=True)
class Watch:
    """One tick, on average, while `jobs` run: CPU seconds of the controller and of the Slurm commands that it ran."""

    jobs: int
    ticks: int
    own_cpu: float
    commands_cpu: float
    squeue: float
    sacct: float
    peak_memory: int

    @classmethod
    def of(cls, jobs: int, ticks: int, interval: float, folder: Path) -> Self:
        """Watch `jobs` sleeping jobs for `ticks` ticks."""
        with SlurmTestCluster() as slurm, _clients(slurm):
            directory = _search(folder, jobs)
            _submit_sleepers(slurm, directory)
            with Daemon(directory) as daemon:
                slurm.wait_for(lambda: _all_run(slurm, jobs), "all jobs running", _START_SECONDS)
                daemon.tick()  # the first learns when they started
                calls, own, commands = dict(daemon.calls), time.process_time(), _children_cpu()
                for _ in range(ticks):
                    daemon.tick()
                    time.sleep(interval)
                own, commands = time.process_time() - own, _children_cpu() - commands
                if not all(node.status is NodeStatus.RUNNING for node in daemon.controller.tree.active()):
                    raise RuntimeError("not all phases ran while they were watched")
                made = {name: count - calls.get(name, 0) for name, count in daemon.calls.items()}
                squeue, sacct = made.get("squeue", 0) / ticks, made.get("sacct", 0) / ticks
                return cls(jobs, ticks, own / ticks, commands / ticks, squeue, sacct, peak_memory())


@dataclass(frozen=True, slots=True)
class Gaps:
    """Seconds from the end of a job to the submission of the next, by Slurm's own clock."""

    tick_seconds: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    @classmethod
    def of(cls, phases: int, tick_seconds: float, folder: Path) -> Self:
        """Run a rehearsal search of `phases` phases, one at a time."""
        with SlurmTestCluster() as slurm, _clients(slurm):
            settings: dict[str, Any] = {
                "name": "gaps",
                "trainer": "rehearsal",
                "model": "none",
                "task": {"name": "chains"},
                "configuration": {"epochs": 2.0, "batch_size": 64},
                "rehearsal": {"step_seconds": 0.05, "failure_rate": 0.0, "train_rows": 512},
                "early_stop": {"enabled": False},
                "budget": {"iterations": phases},
                "live_views": False,
                "tick_seconds": tick_seconds,
                "cluster": _cluster(folder).model_dump(mode="json"),
            }
            directory = create(load_text(yaml.safe_dump(settings), "gaps"), folder / "search", time.time())
            with Daemon(directory) as daemon:
                daemon.loop()
            rows = sorted(slurm.sacct_rows(), key=lambda row: row.submitted_at)
            ends = [row.ended_at or 0.0 for row in rows]
            return cls(tick_seconds, tuple(row.submitted_at - end for end, row in zip(ends, rows[1:], strict=False)))


def watched(jobs: int, ticks: int, interval: float) -> Watch:
    """`Watch.of` in a process of its own."""
    return Watch(**_apart("watch", jobs, ticks, interval))


def gaps(phases: int, tick_seconds: float) -> Gaps:
    """`Gaps.of` in a process of its own."""
    told = _apart("gaps", phases, tick_seconds)
    return Gaps(told["tick_seconds"], tuple(told["seconds"]))


def is_possible() -> bool:
    """Whether a Slurm can be started here."""
    return not why_not_here()


def _apart(*arguments: object) -> dict[str, Any]:
    folder = tempfile.mkdtemp()
    try:
        command = [sys.executable, __file__, *map(str, arguments), folder]
        told: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return told


def _clients(slurm: SlurmTestCluster) -> Any:
    from unittest import mock

    return mock.patch.dict("os.environ", slurm.environment)


def _cluster(folder: Path) -> SlurmClusterConfig:
    profiles = folder / "profiles.yaml"
    profiles.write_text(yaml.safe_dump(_PROFILE))
    return SlurmClusterConfig(kind="slurm", profiles=profiles, grace_seconds=600)


def _search(folder: Path, jobs: int) -> SearchDirectory:
    return search_of(
        folder / "search",
        running(16, jobs),
        cluster=_cluster(folder).model_dump(mode="json"),
        max_parallel_phases=jobs,
        early_stop={"enabled": False},
        live_views=False,
    )


def _submit_sleepers(slurm: SlurmTestCluster, directory: SearchDirectory) -> None:
    """A sleeping job for each phase that is said to run."""
    tree = directory.read_tree()
    for node in tree.active():
        attempt = node.attempts[0]
        options = ("--parsable", f"--job-name={attempt.name}", "--mem=10M", "--output=/dev/null", "--chdir=/")
        job_id = slurm.run("sbatch", *options, "--wrap", "exec sleep 900").strip()
        job = Job(job_id, attempt.name, time.time())
        tree = tree.replacing(replace(node, attempts=(replace(attempt, job=job, started_at=None),)))
    directory.write_tree(tree)


def _all_run(slurm: SlurmTestCluster, jobs: int) -> bool:
    return sum(job.state == "RUNNING" for job in slurm.jobs_in_queue()) == jobs


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    kind, *numbers, place = sys.argv[1:]
    if kind == "watch":
        print(json.dumps(asdict(Watch.of(int(numbers[0]), int(numbers[1]), float(numbers[2]), Path(place)))))
    else:
        print(json.dumps(asdict(Gaps.of(int(numbers[0]), float(numbers[1]), Path(place)))))
