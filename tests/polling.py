"""Waiting for what other processes do: poll with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 1.0
_PAUSE_SHARE = 4
"""Pauses for each time as long as the question took: many who wait on few cores would keep each other from going on."""


def until(condition: Callable[[], T], what: str | Callable[[], str], seconds: float) -> T:
    """Ask again and again until the answer is true, and return it.

    Raises:
        AssertionError: it was not within `seconds`; says `what` was waited for, which may be asked for only then.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked_at = time.monotonic()
        if answer := condition():
            return answer
        now = time.monotonic()
        assert now < deadline, f"waited {seconds:.0f} s in vain for {what if isinstance(what, str) else what()}"
        time.sleep(min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, _PAUSE_SHARE * (now - asked_at))))
