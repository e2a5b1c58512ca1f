"""The controller's own job on a Slurm cluster: submitted once, found by name, requeued by itself."""

from __future__ import annotations

import os

from llmzero_hpc.store.lease import ControllerJob


def own_job() -> ControllerJob | None:
    """The job that this process runs in, None outside of one."""
    job_id = os.environ.get("SLURM_JOB_ID", "")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return ControllerJob(job_id, int(restarts) if restarts.isdecimal() else 0) if job_id else None
