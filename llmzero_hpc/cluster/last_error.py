"""What a command said last of its own failure: a line `error: ...`, which every trainer ends with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TAIL_BYTES = 64 * 1024
_PREFIX = "error: "
_LONGEST = 600


def last_error(log: Path, start: int) -> str:
    """The text of the last such line of a log after byte `start`; empty where there is none, or no log."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(start, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            said = stream.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in said.splitlines() if line.startswith(_PREFIX)]
    return lines[-1].removeprefix(_PREFIX).strip()[:_LONGEST] if lines else ""
