"""What the tests of baselines share."""

from __future__ import annotations

import sys
from pathlib import Path

# The world of the controller's tests, the short ways of the search's to write a tree down, models by script, and kills.
for room in ("controller", "search", "agents", "store", "cli"):
    sys.path.insert(0, str(Path(__file__).parents[1] / room))
