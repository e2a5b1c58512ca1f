"""Reading cluster profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.cluster.profile import ClusterProfile


def read_profile(name: str, file: Path | None) -> ClusterProfile:
    """The profile of that name."""
    raise NotImplementedError
