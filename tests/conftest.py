"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pytest

# How long an example takes says how busy the machine is.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: a change is refused for what it does, not for what an unchanged test happened to draw.
settings.register_profile("repeatable", settings.get_profile("project"), derandomize=True)
# Fresh ones by hand: LLMZERO_EXAMPLES=1000 draws as many for each property that does not say how many it needs.
EXAMPLES = os.environ.get("LLMZERO_EXAMPLES")
if EXAMPLES:
    settings.register_profile("fresh", settings.get_profile("project"), max_examples=int(EXAMPLES))
settings.load_profile("fresh" if EXAMPLES else "repeatable")

# Any test may ask for a Slurm cluster.
sys.path.insert(0, str(Path(__file__).parent / "slurm"))

pytest_plugins = ["slurm_fixtures"]

LONG = ("slow", "slurm", "training")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first: begun last, one of them would be waited for by all workers but its own."""
    long = {item.path for item in items if any(item.get_closest_marker(marker) for marker in LONG)}
    items.sort(key=lambda item: item.path not in long)
