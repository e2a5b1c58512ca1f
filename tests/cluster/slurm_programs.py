"""Programs in the place of Slurm's, and a clock that stands still: for outages that last hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.cluster.slurm_commands import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

DOWN = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Programs:
    """A folder with a shell script for each of Slurm's commands; they do nothing until they are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in COMMANDS:
            self.write(name, "")

    def write(self, name: str, script: str) -> None:
        """Another script for one command."""
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
