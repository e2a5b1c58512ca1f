"""Real phases of VeRL inside their jobs, as Slurm would run them, and somebody else's Ray beside them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import polling
import psutil
from verl_phases import ROOT, attempt_of

from llmzero_hpc.cluster.phase_job import PhaseJob
from llmzero_hpc.cluster.processes import JOB_VARIABLE
from llmzero_hpc.cluster.ray_cluster import write_ray_scripts
from llmzero_hpc.store.phase_directory import PhaseDirectory
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.verl.trainer import VerlTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.trainers.base import PhaseSpec

_RUN = """
import json, sys
from llmzero_hpc.cluster.phase_job import PhaseJob
sys.exit(PhaseJob(**json.loads(sys.argv[1]))())
"""
_HOLDS = """
import os, ray, sys

@ray.remote(num_cpus=0)
class Holder:
    def pid(self):
        return os.getpid()

ray.init(address=sys.argv[1], namespace="bystander", log_to_driver=False)
holder = Holder.options(name="holder", lifetime="detached", get_if_exists=True).remote()
print(ray.get(holder.pid.remote()))
"""


def until(condition: Callable[[], bool], what: Callable[[], str], seconds: float = 600.0) -> None:
    """Poll with a deadline."""
    polling.until(condition, what, seconds)


def plain_environment(short: Path) -> dict[str, str]:
    """Of a process that belongs to no other job; `short` is the machine's folder for temporary files."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "LLMZERO_", "SLURM_"))}
    return {**own, "PYTHONPATH": str(ROOT), "TMPDIR": str(short)}


class VerlJob:
    """One attempt of a phase as a job on one machine."""

    def __init__(self, spec: PhaseSpec, python: str, number: int, short: Path) -> None:
        folder = PhaseDirectory(spec.checkpoints.parent)
        self.number, self.attempt = number, attempt_of(spec, number)
        self._short = short
        self._known: dict[psutil.Process, None] = {}
        write_specification(folder.specification, spec)
        plan = VerlTrainer().plan(folder.specification, self.attempt.path)
        job = PhaseJob(
            name=f"lz-small-0-{number}",
            directory=str(self.attempt.path),
            command=[python, *plan.command[1:]],
            environment=dict(plan.environment),
            attempt=number,
            devices=1,
            gpus=False,
            time_limit_seconds=None,
            ray_scripts=write_ray_scripts(self.attempt.submission, 1),
            watch_seconds=0.2,
        )
        self._folder = job.folder
        environment = {**plain_environment(short), "SLURM_JOB_ID": str(number)}
        self.process = subprocess.Popen([python, "-c", _RUN, json.dumps(job.request())], env=environment)

    def log(self) -> str:
        """What the trainer printed, Ray's workers included."""
        try:
            return self.attempt.trainer_log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes of the job that live and have one of these words in their command lines; all without any.

        Known by their environment, by the job's temporary files, or by their parents; once known, for ever, as Ray's
        workers overwrite their environment and lose their parents.
        """
        found = self._known
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                is_named = process.environ().get(JOB_VARIABLE) == self._folder
                if is_named or any(f"{self._short}/lz-" in argument for argument in process.cmdline()):
                    found.update(dict.fromkeys([process, *process.children(recursive=True)]))
        return [process for process in found if _lives(process, words)]

    def end(self) -> None:
        """Clear up after a test that failed."""
        self.process.kill()
        self.process.wait()
        for process in self.processes():
            process.kill()


def _lives(process: psutil.Process, words: tuple[str, ...]) -> bool:
    with suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            command = " ".join(process.cmdline())
            return not words or any(word in command for word in words)
    return False


class Bystander:
    """A Ray cluster that somebody else runs on this machine, with an actor of theirs in it."""

    def __init__(self, python: str, short: Path) -> None:
        (short / "token").write_text(secrets.token_hex(32))
        self._environment = plain_environment(short)
        self._environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(short / "token")}
        self._python, self._address = python, short / "b" / "ray_current_cluster"
        command = [
            *(
                str(Path(python).parent / "ray"),
                "start",
                "--head",
                "--block",
                "--node-ip-address=127.0.0.1",
                "--port=0",
            ),
            *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", "--num-cpus=1"),
            *("--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={short / 'b'}"),
        ]
        self._ray = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        self._processes: list[psutil.Process] = []
        self._holder = 0

    def start(self) -> None:
        """Wait until it works; what belongs to it from then on is to stay."""
        until(self._address.is_file, lambda: f"Ray's exit code: {self._ray.poll()}")
        self._holder = self._pid_of_holder()
        ray = psutil.Process(self._ray.pid)
        self._processes = [ray, *ray.children(), psutil.Process(self._holder)]

    def is_whole(self) -> bool:
        """Whether all of it lives."""
        return len(self._processes) > 2 and all(_lives(process, ()) for process in self._processes)

    def answers(self) -> bool:
        """Whether its actor is the one that it was."""
        return self._pid_of_holder() == self._holder

    def end(self) -> None:
        """End it."""
        for process in [*psutil.Process(self._ray.pid).children(recursive=True), self._ray]:
            with suppress(psutil.Error):
                process.kill()
        self._ray.wait()

    def _pid_of_holder(self) -> int:
        command = [self._python, "-c", _HOLDS, self._address.read_text().strip()]
        asked = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=300)
        assert asked.returncode == 0, asked.stderr[-4000:]
        return int(asked.stdout)
