"""The modules beside these tests, and those of the tests of agents, are found by name."""

from __future__ import annotations

import sys
from pathlib import Path

for _folder in ("server", "agents"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))
