"""What the tests of baselines share."""

from __future__ import annotations

import sys
from pathlib import Path

# The world of the controller's tests, and the short ways of the search's to write a tree down.
for room in ("controller", "search"):
    sys.path.insert(0, str(Path(__file__).parents[1] / room))
