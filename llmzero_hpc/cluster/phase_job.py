"""What runs inside every job, on each of its machines: the first runs the trainer's command, the others help it.

Imports stay small, as every job pays for them, on every node.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llmzero_hpc.cluster.follower import Follower
from llmzero_hpc.cluster.head import Head
from llmzero_hpc.cluster.job_environment import (
    ATTEMPT_VARIABLE,
    HEAD_VARIABLE,
    NODES_VARIABLE,
    RESTART_VARIABLE,
    rank,
    scrubbed,
)
from llmzero_hpc.cluster.processes import JOB_VARIABLE, RUN_VARIABLE, job_folder


@dataclass
class PhaseJob:
    """One attempt of a phase as submitit pickles and calls it. Plain data, so that a later version can read it.

    Called in the main thread of one process on each machine. A second copy of the same run returns at once and touches
    nothing; a run that a newer one has replaced ends itself, without a marker.

    Attributes:
        time_limit_seconds: None where the cluster keeps the limit.
        grace_seconds: between the SIGTERM and the SIGKILL that the command gets.
        gpu_ids: values for CUDA_VISIBLE_DEVICES; None leaves what the cluster has set.
        nodes: machines.
        progress: folder that gains an entry with each checkpoint; a run that gained none before the time limit is not
            queued again. Empty: it never does.
        ray_scripts: folder with `ray_head.sh` and `ray_worker.sh`; empty: the command needs no Ray.
        ray_join_seconds: how long the machines have to join Ray.
        signal_seconds: how long before its time limit Slurm was asked to send SIGUSR2.
        watch_seconds: between two looks for a newer run, and at the head's word.
    """

    name: str
    directory: str
    command: list[str]
    environment: dict[str, str]
    attempt: int
    devices: int
    gpus: bool
    time_limit_seconds: float | None
    grace_seconds: float = 10.0
    gpu_ids: list[str] | None = None
    nodes: int = 1
    progress: str = ""
    ray_scripts: str = ""
    ray_join_seconds: float = 600.0
    signal_seconds: float = 90.0
    watch_seconds: float = 2.0

    @property
    def folder(self) -> str:
        """Of its submission, which tells its processes from all others on a machine."""
        return job_folder(Path(self.directory), self.name)

    def request(self) -> dict[str, Any]:
        """Its fields as JSON takes them: `PhaseJob(**request)` makes it again."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def __call__(self) -> int:
        """Run the attempt; returns 0, and leaves by SystemExit with a shell's exit code where the command failed."""
        # Ctrl-C in a terminal is for the controller alone; the command inherits this.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        own_rank = rank()
        if own_rank:
            Follower(self, own_rank).run()
            return 0
        exit_code = Head(self).run()
        if exit_code:
            raise SystemExit(exit_code if exit_code > 0 else 128 - exit_code)
        return 0

    def checkpoint(self) -> Any:
        """What submitit's handler queues again: this very job, which looks its newest state up when it runs."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def trainer_environment(self, run: str, restart: int, head_address: str) -> dict[str, str]:
        """What a process of the trainer's sees, on any machine; the plan's own variables have the last word."""
        environment = scrubbed(os.environ)
        environment[JOB_VARIABLE], environment[RUN_VARIABLE] = self.folder, run
        environment[ATTEMPT_VARIABLE], environment[RESTART_VARIABLE] = str(self.attempt), str(restart)
        environment[NODES_VARIABLE], environment[HEAD_VARIABLE] = str(self.nodes), head_address
        environment["PYTHONUNBUFFERED"] = "1"
        if not self.gpus:
            environment.update({key: str(self.devices) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
        if self.gpu_ids is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpu_ids)
        return {**environment, **self.environment}
