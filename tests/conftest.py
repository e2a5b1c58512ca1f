"""What all tests share."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# Any test may ask for a Slurm cluster.
sys.path.insert(0, str(Path(__file__).parent / "slurm"))

pytest_plugins = ["slurm_fixtures"]
