"""When a running phase is due for the early stopper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.sections import EarlyStop


class Judging:
    """Keeps nothing itself: the node carries what was judged and when, as each tick may be made by another process.

    Only validation decides, so a phase is judged at most once for each validation.

    With an interval of 0 every validation is judged in order and a phase is not final before all its judgements came
    in. Then a decision depends on the metrics alone, not on when someone looked, and a search repeats exactly.
    """

    def __init__(self, rule: EarlyStop) -> None:
        self._rule = rule

    def due(self, node: Node, now: float) -> int | None:
        """The step to judge now, or None."""
        if not self._rule.enabled or node.stop is not None or node.cancel_requested or node.total_steps is None:
            return None
        earliest = node.first_step - 1 + self._rule.first_step
        last = node.first_step + node.total_steps - 1
        if self._rule.interval_seconds == 0:
            steps = (point.step for point in node.checkpoints)
            return next((step for step in steps if step > node.judged_step and earliest <= step < last), None)
        running = node.status is NodeStatus.RUNNING and node.attempt is not None and not node.attempt.is_over
        if not running or node.last_step is None or node.last_step < earliest:
            return None
        if not node.checkpoints or node.checkpoints[-1].step <= node.judged_step:
            return None
        since = node.judged_at or (node.attempt.started_at if node.attempt else None) or now
        return node.last_step if now - since >= self._rule.interval_seconds else None

    def owes(self, node: Node, now: float) -> bool:
        """Whether a node whose job has ended must wait for judgements before it is final."""
        return self._rule.interval_seconds == 0 and self.due(node, now) is not None
