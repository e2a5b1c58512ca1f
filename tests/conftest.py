"""What all tests share."""

from __future__ import annotations

import sys
from pathlib import Path

# Any test may ask for a Slurm cluster.
sys.path.insert(0, str(Path(__file__).parent / "slurm"))

pytest_plugins = ["slurm_fixtures"]
