"""Refreshing what people look at, in a process of its own: plotting would cost the daemon most of its memory."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Views:
    """Asks for new plots, HDF5 files and report: one refresh at a time, a request during one starts another."""

    def __init__(self, root: Path, *, live: bool) -> None:
        self._command = (sys.executable, "-m", "llmzero_hpc.report.views", str(root))
        self._live = live
        self._requested = False
        self._process: subprocess.Popen[bytes] | None = None

    def request(self) -> None:
        """Something changed that people want to see."""
        self._requested = self._live
        self.poll()

    def poll(self) -> None:
        """Start a requested refresh when none is running; never waits."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = None
        if self._requested:
            self._requested = False
            self._process = self._start()

    def refresh(self) -> bool:
        """Refresh now and wait for it, and for one under way; whether it succeeded. One that runs outlives us."""
        if self._process is not None:
            self._process.wait()
        return self._start().wait() == 0

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
