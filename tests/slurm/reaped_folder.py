"""A temporary folder that takes everything with it: run as a script, this file is the process that sees to it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_SECONDS = 120


class ReapedFolder:
    """A temporary folder of a cluster, gone after `remove` or after the death of this process, however it died.

    With it goes every process that has the folder's `slurm.conf` in its environment: daemons, steps, jobs and whatever
    they have left behind.
    """

    def __init__(self) -> None:
        # Short: paths of sockets in it have to fit into 108 bytes.
        self.path = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.path.chmod(0o755)
        self.environment = {"SLURM_CONF": str(self.path / "slurm.conf")}
        clean = {key: value for key, value in os.environ.items() if key != "SLURM_CONF"}
        # A session of its own: Ctrl-C is not for it.
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", __file__, str(self.path), str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=clean,
        )

    def processes(self) -> list[int]:
        """Ids of the processes that would go with it."""
        return list(_marked(self.path))

    def remove(self) -> None:
        """Kill the processes, remove the folder; being gone already is fine."""
        self._reaper.communicate(b"now", timeout=2 * _PATIENCE_SECONDS)


def _marked(folder: Path) -> Iterator[int]:
    """Processes that belong to a folder; zombies have no environment any more."""
    mark = f"SLURM_CONF={folder}/slurm.conf".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def _reap(folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (pids := list(_marked(folder))) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def _main() -> None:
    folder, owner = Path(sys.argv[1]), int(sys.argv[2])
    # A fork of the owner may hold the pipe open after its death.
    while os.getppid() == owner and not select.select([sys.stdin], [], [], 0.5)[0]:
        pass
    _reap(folder)


if __name__ == "__main__":
    _main()
