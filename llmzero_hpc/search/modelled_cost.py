"""What a phase costs where its trainer models the seconds of each step instead of measuring them: pure arithmetic.

A step is paid for once, though it may have to be made again after a kill. So the cost of a search follows from what it
did alone, and a budget ends the same phase at the same step however fast the machine was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmzero_hpc.search.metrics import Series
    from llmzero_hpc.search.node import Node

_STEP_SECONDS = "step_seconds"


def attempt_seconds(node: Node, series: Series, devices: int) -> float:
    """Device-seconds of a node's newest attempt: what its steps cost and earlier attempts have not been charged for."""
    counted = series if node.stop is None else series.up_to(node.stop.step)
    earlier = sum(attempt.device_seconds for attempt in node.attempts[:-1])
    return max(0.0, _seconds(counted, devices) - earlier)


def last_step_within(series: Series, devices: int, device_seconds_left: float) -> int | None:
    """The step with which a budget is used up; None while some of it is left."""
    spent = 0.0
    for step, seconds in series.points(_STEP_SECONDS):
        spent += seconds * devices
        if spent >= device_seconds_left:
            return step
    return None


def _seconds(series: Series, devices: int) -> float:
    return sum(seconds for _, seconds in series.points(_STEP_SECONDS)) * devices
