"""A job of an exported strategy: `python -m llmzero_hpc.cluster.chain_job TRAINER train|score FOLDER`.

FOLDER is laid out like a phase's and holds its specification. Each job makes an attempt of its own in it, numbered by
the job, and goes on where an earlier one was.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.job_environment import job_id
from llmzero_hpc.cluster.phase_job import PhaseJob
from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.store.phase_directory import AttemptDirectory, PhaseDirectory
from llmzero_hpc.trainers.registry import make_trainer
from llmzero_hpc.trainers.specification import read_evaluation, read_phase

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


class Work(StrEnum):
    """What a job does."""

    TRAIN = "train"
    SCORE = "score"


RAY_SCRIPTS = "ray"
"""Folder beside those of the jobs, there when their commands need Ray."""


def chain_job(trainer: str, work: Work, folder: PhaseDirectory) -> PhaseJob:
    """The job as this process, one on each of its machines, is to run it.

    Raises:
        ConfigurationError: the specification is missing or wrong.
        StorageError: the attempt's folder cannot be made.
    """
    attempt = _attempt(folder)
    file = folder.specification
    if work is Work.TRAIN:
        hardware, plan = read_phase(file).hardware, make_trainer(trainer).plan(file, attempt.path)
    else:
        hardware, plan = read_evaluation(file).hardware, make_trainer(trainer).plan_evaluation(file, attempt.path)
    attempt.create()
    return PhaseJob(
        name=f"strategy-{folder.path.name}",
        directory=str(attempt.path),
        command=list(plan.command),
        environment=dict(plan.environment),
        attempt=int(attempt.path.name),
        devices=hardware.devices,
        gpus=hardware.gpus > 0,
        time_limit_seconds=None,
        nodes=hardware.nodes,
        progress=str(folder.checkpoints) if work is Work.TRAIN else "",
        ray_scripts=str(folder.path.parent / RAY_SCRIPTS) if plan.ray else "",
    )


def _attempt(folder: PhaseDirectory) -> AttemptDirectory:
    """Alike on all machines of a job."""
    if job_id():
        return folder.attempt(int(job_id()))
    taken = folder.attempts()
    return folder.attempt(int(taken[-1].path.name) + 1 if taken else 1)


def _requeue(_number: int, _frame: FrameType | None) -> None:
    """Called when the command has stopped before a time limit or a preemption, and another run is worth its while."""
    subprocess.run(["scontrol", "requeue", job_id()], check=True, capture_output=True)
    raise SystemExit(0)


def main(arguments: Sequence[str]) -> int:
    """Run the job; the exit code. A command that fails leaves by SystemExit with its own."""
    trainer, work, folder = arguments
    if job_id():
        signal.signal(signal.SIGUSR2, _requeue)
    try:
        return chain_job(trainer, Work(work), PhaseDirectory(Path(folder)))()
    except LLMZeroError as error:
        sys.stderr.write(f"{error.message}\n{error.next_step}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
