"""`python -m llmzero_hpc.cluster.reaper RUN DIRECTORY`: ends what a phase job has started when that is no more.

A phase job that is killed cannot clear up, and where Slurm tracks processes by their parents, what it leaves would
train on beside the next run. `DIRECTORY` is for people who wonder what this process is.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.command import announcements_kept
from llmzero_hpc.cluster.processes import kill_stragglers
from llmzero_hpc.cluster.ray_cluster import ray_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def reaped(run: str, directory: str) -> Iterator[None]:
    """While the block runs, the death of this process takes along all that it started with that `RUN_VARIABLE`."""
    with announcements_kept():
        reaper = subprocess.Popen(
            [sys.executable, "-m", "llmzero_hpc.cluster.reaper", run, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield
    finally:
        reaper.kill()
        reaper.wait()


def main() -> int:
    """Wait for the end of the phase job, which holds the other end of stdin, and kill what it has left."""
    for number in _DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    run = sys.argv[1]
    kill_stragglers(run)
    shutil.rmtree(ray_folder(run), ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
