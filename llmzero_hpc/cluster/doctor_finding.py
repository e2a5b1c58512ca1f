"""What a check finds, and what is checked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.sections import SlurmClusterConfig


class Verdict(StrEnum):
    """How a check ended. Only what `FAILED` would stop a search."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: a line for people, and what they can do about it."""

    check: str
    verdict: Verdict
    message: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: a profile, and the search that would run with it, where there is one."""

    profile: ClusterProfile
    settings: SlurmClusterConfig
    state: Path
    """Folder in which searches live."""
    config: SearchConfig | None = None
