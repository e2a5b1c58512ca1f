"""Phase jobs as processes of their own, under what submitit does around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import polling

from llmzero_hpc.cluster.phase_job import PhaseJob

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.cluster.base import JobRequest

REQUEUED = 255
"""Exit code of a job that asked Slurm to queue it again."""
WATCH_SECONDS = 0.5
"""Other machines take a head for lost that has said nothing for three hundred times as long."""
RAY_SECONDS = 500.0

# What submitit does: a handler for the signal that announces an end, the job dumped anew, a requeue, and exit(-1).
_RUN = """
import json, os, pickle, signal, sys
from llmzero_hpc.cluster.phase_job import PhaseJob
job = PhaseJob(**json.loads(sys.argv[1]))
def announced(number, frame):
    again = job.checkpoint()
    assert pickle.loads(pickle.dumps(again.function)).request() == job.request()
    if os.environ.get("REQUEUE_REFUSED"):
        raise RuntimeError(os.environ["REQUEUE_REFUSED"])
    sys.exit(-1)
signal.signal(signal.SIGUSR2, announced)
sys.exit(job())
"""


def phase_job(wanted: JobRequest, **fields: Any) -> PhaseJob:
    """The job of a request; a command has half a minute to save."""
    usual: dict[str, Any] = {"time_limit_seconds": 600.0, "grace_seconds": 30.0, "watch_seconds": WATCH_SECONDS}
    return PhaseJob(
        name=wanted.name,
        directory=str(wanted.directory),
        command=list(wanted.plan.command),
        environment=dict(wanted.plan.environment),
        attempt=1,
        devices=1,
        gpus=False,
        **{**usual, **fields},
    )


def started(wanted: JobRequest, fields: dict[str, Any] | None = None, /, **environment: str) -> subprocess.Popen[bytes]:
    """One process of that job, with these variables in its environment and no other of Slurm's."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    job = phase_job(wanted, **(fields or {}))
    # The last argument lets tests find the process by the folder that it works in.
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, json.dumps(job.request()), str(wanted.directory)], env={**own, **environment}
    )


def until_ray(condition: Callable[[], bool], log: Path) -> None:
    """Poll with a deadline that is long enough for Ray, which starts a dozen processes on each machine."""
    polling.until(condition, log.read_text, RAY_SECONDS)
