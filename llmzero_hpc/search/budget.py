"""What is left of a search's budget: pure arithmetic over the tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llmzero_hpc.search.node import Node
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
    @property
    def api_dollars(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Account:
    """Used and left: device-seconds (wall seconds times devices), but for `seconds_left` (wall) and the dollars."""

    iterations_left: int
    device_seconds_used: float
    device_seconds_left: float | None
    seconds_left: float | None
    expected_seconds: float
    """What one more phase is expected to cost: as much as the dearest so far, and no less than the shortest job."""
    promised_seconds: float
    """What submitted jobs may still spend: what is left of their allowance, or of the expectation where they have none.
    """
    reserved_seconds: float
    """What all active phases may still spend: the promised, and the expectation for those not submitted yet."""
    dollars_used: float = 0.0
    dollars_left: float | None = None
    shortest_seconds: float = 0.0
    """Wall seconds of the shortest time limit that a job can have."""
    devices: int = 1
    """Of one phase."""
    server_devices: int = 0
    """Of the agents' own language model server, which costs as much for as long as phases run."""

    @property
    def refusal(self) -> str | None:
        """Why no further phase may start, or None. While phases run it may pass: most cost less than they may."""
        if self.iterations_left <= 0:
            return "all iterations are used"
        if self.dollars_left is not None and self.dollars_left <= 0:
            return "the money for language models is used up"
        if self.seconds_left is not None and self.seconds_left <= 0:
            return "the deadline has passed"
        if self.seconds_left is not None and self.seconds_left < self.shortest_seconds:
            return "the time until the deadline is too short for a job"
        if self.device_seconds_left is not None:
            free = self.device_seconds_left - self.reserved_seconds
            if free <= 0 or free < self.expected_seconds:
                return "the compute budget does not cover another phase"
        return None

    @property
    def overdrawn(self) -> str | None:
        """Why running phases must end now, or None. They cost no money for language models."""
        if self.device_seconds_left is not None and self.device_seconds_left <= 0:
            return "the compute budget is used up"
        if self.seconds_left is not None and self.seconds_left <= 0:
            return "the deadline has passed"
        return None


def account(
    tree: Tree,
    budget: Limits,
    created_at: float,
    now: float,
    *,
    api_dollars_used: float = 0.0,
    shortest_seconds: float = 0.0,
    devices: int = 1,
    server_device_seconds: float = 0.0,
    server_devices: int = 0,
) -> Account:
    """The state of the budget at `now`.

    Args:
        tree: what was trained, and what is in flight.
        budget: the limits.
        created_at: when the search was created, seconds since the epoch.
        now: seconds since the epoch.
        api_dollars_used: what the agents' language models have cost so far.
        shortest_seconds: wall seconds of the shortest time limit that a job can have.
        devices: of one phase.
        server_device_seconds: what the agents' own server has cost so far.
        server_devices: of that server.
    """
    used = tree.device_seconds() + server_device_seconds
    shortest = shortest_seconds * devices
    expected = max((node.device_seconds for node in tree if node.status.is_final), default=0.0)
    expected = max(expected, shortest)
    claims = [(_is_submitted(node), _claim(node, expected, shortest)) for node in tree.active()]
    return Account(
        iterations_left=budget.iterations - tree.iterations(),
        device_seconds_used=used,
        device_seconds_left=None if budget.device_hours is None else budget.device_hours * _HOUR - used,
        seconds_left=None if budget.deadline_hours is None else created_at + budget.deadline_hours * _HOUR - now,
        expected_seconds=expected,
        promised_seconds=sum(claim for submitted, claim in claims if submitted),
        reserved_seconds=sum(claim for _, claim in claims),
        dollars_used=api_dollars_used,
        dollars_left=None if budget.api_dollars is None else budget.api_dollars - api_dollars_used,
        shortest_seconds=shortest_seconds,
        devices=devices,
        server_devices=server_devices,
    )


def affordable_seconds(account: Account, places: int) -> float | None:
    """Longest run of the job that is submitted next, in wall seconds; None where the budget sets no limit.

    With such a time limit it is the cluster that ends a job which would overdraw the compute budget, whether or not a
    controller lives to see it: the allowances of all submitted jobs together never exceed what is left. So that phases
    in parallel do not wait for each other, what nobody was promised is shared by as many of the `places` free for
    phases, this one's included, as it covers at the expected cost. 0 where all is promised: the job has to wait until
    others end. The agents' own server, which no such limit ends in time, goes on taking its part meanwhile.
    """
    limits = []
    if account.device_seconds_left is not None:
        free = max(0.0, account.device_seconds_left - account.promised_seconds)
        covered = free / account.expected_seconds if account.expected_seconds > 0 else 1.0
        shares = max(1, int(min(covered, places)))
        limits.append(free / (shares * account.devices + account.server_devices))
    if account.seconds_left is not None:
        limits.append(max(0.0, account.seconds_left))
    return min(limits, default=None)


def _is_submitted(node: Node) -> bool:
    return node.attempt is not None and not node.attempt.is_over


def _claim(node: Node, expected: float, shortest: float) -> float:
    attempt = node.attempt
    if attempt is not None and not attempt.is_over and attempt.allowance is not None:
        # a run that was requeued may take the whole time limit once more
        return max(0.0, attempt.allowance - (attempt.device_seconds - attempt.earlier_device_seconds))
    return max(shortest if attempt is None or attempt.is_over else 0.0, expected - node.device_seconds)
