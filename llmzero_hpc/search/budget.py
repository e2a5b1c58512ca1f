"""What is left of a search's budget: pure arithmetic over the tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llmzero_hpc.search.tree import Tree

_HOUR = 3600.0


class Limits(Protocol):
    """What a search may use; None is no limit. Device hours are GPU-hours, or CPU-hours without a GPU."""

    @property
    def iterations(self) -> int: ...
    @property
    def device_hours(self) -> float | None: ...
    @property
    def deadline_hours(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Account:
    """Used and left. `expected_seconds` is what one more phase is expected to cost: the dearest finished one so far."""

    iterations_left: int
    device_seconds_used: float
    device_seconds_left: float | None
    seconds_left: float | None
    expected_seconds: float
    reserved_seconds: float
    """What active phases may still spend, by the same expectation."""

    @property
    def refusal(self) -> str | None:
        """Why no further phase may start, or None."""
        if self.iterations_left <= 0:
            return "all iterations are used"
        if self.seconds_left is not None and self.seconds_left <= 0:
            return "the deadline has passed"
        left = self.device_seconds_left
        if left is not None and left - self.reserved_seconds - self.expected_seconds <= 0:
            return "the compute budget does not cover another phase"
        return None

    @property
    def overdrawn(self) -> str | None:
        """Why running phases must end now, or None."""
        if self.device_seconds_left is not None and self.device_seconds_left <= 0:
            return "the compute budget is used up"
        if self.seconds_left is not None and self.seconds_left <= 0:
            return "the deadline has passed"
        return None


def account(tree: Tree, budget: Limits, created_at: float, now: float) -> Account:
    """The state of the budget at `now`."""
    used = tree.device_seconds()
    expected = max((node.device_seconds for node in tree if node.status.is_final), default=0.0)
    reserved = sum(max(0.0, expected - node.device_seconds) for node in tree.active())
    return Account(
        iterations_left=budget.iterations - tree.iterations(),
        device_seconds_used=used,
        device_seconds_left=None if budget.device_hours is None else budget.device_hours * _HOUR - used,
        seconds_left=None if budget.deadline_hours is None else created_at + budget.deadline_hours * _HOUR - now,
        expected_seconds=expected,
        reserved_seconds=reserved,
    )
