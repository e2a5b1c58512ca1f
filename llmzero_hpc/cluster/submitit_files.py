"""What submitit keeps of a job beside its script: pickles, each written under another name first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.atomic import remove


def clear_unfinished(job_id: str, rank: int) -> None:
    """Remove what an earlier run of this process was writing when it was killed: submitit would not write it anew.

    A job that it could not write again would not be queued again either.
    """
    folder = os.environ.get("SUBMITIT_FOLDER")
    if not folder:
        return
    names = [f"{job_id}_{rank}_result.pkl"] + ([f"{job_id}_submitted.pkl"] if rank == 0 else [])
    for name in names:
        with contextlib.suppress(StorageError):
            remove(Path(folder) / f"{name}.save_tmp")
