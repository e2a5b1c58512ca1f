"""The cluster's part of a tick: submit what is meant to run, observe what runs, end what is not wanted any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import JobObservation
from llmzero_hpc.controller.advance import (
    JobReport,
    Policy,
    advance_attempt,
    advance_node,
    ending_text,
    is_leftover,
    retry_at,
    settled_charge,
    with_progress,
)
from llmzero_hpc.controller.limits import PhaseLimits
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.search.budget import affordable_seconds
from llmzero_hpc.search.node import Ending, NodeStatus
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.store.marker import read_marker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmzero_hpc.controller.house import House
    from llmzero_hpc.controller.progress import Progress
    from llmzero_hpc.controller.state import SearchState
    from llmzero_hpc.search.budget import Account
    from llmzero_hpc.search.node import Attempt, Node
    from llmzero_hpc.store.phase_directory import PhaseDirectory

_LONGEST_RETRY_SECONDS = 1800.0
_RETRY_TICKS = 2
"""Between an error of the infrastructure and the next attempt, at first."""
_CANNOT_RUN_AGAIN = frozenset({Ending.COMPLETED, Ending.ERROR, Ending.INFRASTRUCTURE_ERROR})


@dataclass(frozen=True, slots=True)
class Sight:
    """What one question to the cluster brought. Only if it `answered` does a missing job mean anything."""

    now: float
    answered: bool
    jobs: Mapping[str, JobObservation]


class Jobs:
    """Phases as jobs. `error` is why the cluster could not be asked in this tick, empty when it could."""

    def __init__(
        self, house: House, state: SearchState, progress: Progress, owes: Callable[[Node, float], bool]
    ) -> None:
        config = house.directory.record.config
        slurm = config.cluster if isinstance(config.cluster, SlurmClusterConfig) else None
        self._directory = house.directory
        self._cluster = house.cluster
        self._submission = house.submission
        self._state = state
        self._progress = progress
        self._owes = owes
        self._tick_seconds = config.tick_seconds
        minutes = config.cluster.time_limit_minutes
        self._longest_seconds = house.cluster.time_limit_seconds if minutes is None else 60 * minutes
        self._accounting_seconds = slurm.accounting_seconds if slurm else 0.0
        self._models_cost = config.hardware.cost == "modelled"
        self._limits = PhaseLimits(config, owes)
        self._retries: dict[str, tuple[int, float]] = {}
        self._words: dict[str, str] = {}
        self.policy = Policy(
            grace_seconds=config.cluster.grace_seconds,
            devices=config.hardware.devices,
            max_attempts=config.max_attempts,
        )
        self.error = ""

    # Submission

    def allowance(self, account: Account, places: int) -> float | None:
        """Device-seconds that the job submitted next may cost: 0 when it has to wait, None without a limit."""
        if self._models_cost and account.device_seconds_left is not None and account.device_seconds_left > 0:
            # The clock of the cluster knows nothing of modelled seconds: the controller ends what uses up the budget.
            account = replace(account, device_seconds_left=None)
        seconds = affordable_seconds(account, places)
        if seconds is None:
            return None
        seconds = min(seconds, self._longest_seconds)
        grain = self._cluster.time_limit_grain_seconds
        return seconds // grain * grain * self.policy.devices

    def submit(self, proposed: Node, allowance: float | None) -> None:
        """Commit the intent of the next attempt, then ask the cluster."""
        node = self._submission.intended(proposed, allowance)
        self._state.put(node)
        if self.may_submit(node.attempts[-1], node.attempts[:-1]):
            self._state.put(self._submission.launched(self._state.tree, node))
            self.was_tried(self._state.tree[node.id].attempts[-1])
        self._state.say("submit", node.attempts[-1].name, node.id)

    def submit_open_intents(self) -> None:
        """Intents without a job are from before a crash, or the cluster refused them, or could not say."""
        for node in self._state.tree.active():
            attempt = node.attempt
            if node.status is not NodeStatus.SUBMITTING or attempt is None or attempt.is_over:
                continue
            unwanted = node.stop is not None or node.cancel_requested
            if unwanted or self.may_submit(attempt, node.attempts[:-1]):
                self._state.put(self._submission.recovered(self._state.tree, node, submit=not unwanted))
                self.was_tried(self._state.tree[node.id].attempts[-1])

    def may_submit(self, attempt: Attempt, earlier: tuple[Attempt, ...]) -> bool:
        """Whether it is time to try this attempt, and the job of the one before can certainly not run again."""
        if self._state.clock() < self._retries.get(attempt.name, (0, 0.0))[1]:
            return False
        lost = earlier[-1] if earlier and earlier[-1].ending not in _CANNOT_RUN_AGAIN else None
        # The cluster may think of requeueing what looked lost.
        return lost is None or lost.job is None or self._ask(partial(self._cluster.cancel, lost.job))

    def is_resting(self, attempts: tuple[Attempt, ...]) -> bool:
        """Whether an error of the infrastructure is too fresh for the next attempt."""
        left = retry_at(attempts, _RETRY_TICKS * self._tick_seconds) - self._state.clock()
        if left <= 0:
            return False
        self._words[attempts[-1].name] = f"next attempt in {left:.0f} s, after {ending_text(attempts[-1])}"
        return True

    def was_tried(self, attempt: Attempt) -> None:
        """Wait longer after each refusal."""
        refusal = self._submission.refusals.pop(attempt.name, None)
        self._words.pop(attempt.name, None)
        if refusal is None:
            self._retries.pop(attempt.name, None)
            return
        tries = self._retries.get(attempt.name, (0, 0.0))[0]
        pause = min(self._tick_seconds * 2**tries, _LONGEST_RETRY_SECONDS)
        self._retries[attempt.name] = (tries + 1, self._state.clock() + pause)
        self._words[attempt.name] = f"refused, next try in {pause:.0f} s: {refusal}"

    # Observation

    def observe(self) -> Sight:
        """One question to the cluster about all jobs, and what follows for the phases."""
        self.error = ""
        seen: dict[str, JobObservation] = {}
        jobs = [job for attempt in (*self._live(), *self.unaccounted()) if (job := attempt.job)]
        answered = not jobs or self._ask(lambda: seen.update(self._cluster.observe(jobs)))
        sight = Sight(self._state.clock(), answered, seen)
        self._account_for(sight)
        advanced = [
            self._advanced_node(node, sight)
            for node in self._state.tree.active()
            if node.attempt is not None and node.status is not NodeStatus.PROPOSED
        ]
        self._take_in([node for node in advanced if not node.status.is_final])
        for node in advanced:
            if node.status.is_final:
                self._state.settle(node)
                self._progress.forget(node.id)
        return sight

    def advanced(self, attempt: Attempt, folder: PhaseDirectory, sight: Sight) -> Attempt:
        """An attempt after a look at its witnesses. A job that outlives its phase is cancelled."""
        observation = sight.jobs.get(attempt.name)
        marker = read_marker(folder.attempt(attempt.number))
        report = JobReport(sight.now, sight.answered, observation, marker)
        after = advance_attempt(attempt, report, self.policy)
        if self._models_cost:
            after = replace(after, device_seconds=0.0)
        if observation is not None and observation.state.is_live and observation.reason:
            self._words[attempt.name] = observation.reason
        elif attempt.job is not None:
            self._words.pop(attempt.name, None)
        if attempt.job is not None and is_leftover(after, report, self.policy):
            self._ask(partial(self._cluster.cancel, attempt.job))
        return after

    def unaccounted(self) -> list[Attempt]:
        """Attempts that are over and whose cost accounting may still tell."""
        if not self._cluster.keeps_accounts:
            return []
        oldest = self._state.clock() - self._accounting_seconds
        return [
            attempt
            for attempt in self._attempts()
            if attempt.is_over and attempt.job and not attempt.accounted and (attempt.ended_at or 0.0) > oldest
        ]

    def words(self, node: Node) -> str:
        """What the cluster says of a node that waits, for people."""
        attempt = node.attempt
        return self._words.get(attempt.name, "") if attempt else ""

    # Cancellation

    def cancel_unwanted(self) -> None:
        """Ask for the end of jobs whose phases were stopped or cancelled; the decision is on disk."""
        for node in self._state.tree.active():
            if node.stop or node.cancel_requested:
                self._cancel(node.attempt)

    def recall(self) -> int:
        """Ask for the end of every live job, as the search is to rest; its phases can go on. How many there were."""
        live = [attempt.name for attempt in self._live()]
        running = [node for node in self._state.tree.active() if node.attempt and node.attempt.name in live]
        self._state.put(
            *(
                replace(node, attempts=(*node.attempts[:-1], replace(node.attempts[-1], recalled=True)))
                for node in running
            )
        )
        return sum([self._cancel(attempt) for attempt in self._live()])

    def _cancel(self, attempt: Attempt | None) -> bool:
        if attempt is None or attempt.job is None or attempt.is_over:
            return False
        return self._ask(partial(self._cluster.cancel, attempt.job))

    def _ask(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except ClusterError as error:
            self.error = error.message
            return False
        return True

    def _advanced_node(self, node: Node, sight: Sight) -> Node:
        attempt = self.advanced(node.attempts[-1], self._directory.phase(node.id), sight)
        series, complete = self._progress.observe(node)
        node = with_progress(node, series, complete)
        node, attempt = self._limits.charged(self._state.tree, node, attempt, series, sight.now)
        node = with_progress(node, series, complete)
        return advance_node(node, attempt, self.policy, hold=attempt.is_over and self._owes(node, sight.now))

    def _take_in(self, nodes: list[Node]) -> None:
        """All that goes on, in one commit."""
        before = self._state.tree
        self._state.put(*nodes)
        for node in nodes:
            attempt = node.attempt
            if node.status is NodeStatus.PROPOSED and attempt and attempt.is_over:
                self._state.say("phase", f"goes on in another attempt after {ending_text(attempt)}", node.id)
            elif node.status is NodeStatus.RUNNING and before[node.id].status is not NodeStatus.RUNNING:
                self._state.say("phase", "running", node.id)

    def _account_for(self, sight: Sight) -> None:
        """Take in what accounting says of attempts that are over, in one commit."""
        tree = self._state.tree

        def settled(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
            return tuple(
                settled_charge(attempt, seen.charge)
                if attempt.is_over and not attempt.accounted and (seen := sight.jobs.get(attempt.name))
                else attempt
                for attempt in attempts
            )

        if not sight.jobs:
            return
        changed = [replace(node, attempts=after) for node in tree if (after := settled(node.attempts)) != node.attempts]
        tree = tree.replacing(*changed)
        if tree.evaluation:
            tree = replace(tree, evaluation=replace(tree.evaluation, attempts=settled(tree.evaluation.attempts)))
        self._state.commit(tree)

    def _attempts(self) -> Iterator[Attempt]:
        for node in self._state.tree:
            yield from node.attempts
        if self._state.tree.evaluation:
            yield from self._state.tree.evaluation.attempts

    def _live(self) -> list[Attempt]:
        return [attempt for attempt in self._attempts() if attempt.job and not attempt.is_over]
