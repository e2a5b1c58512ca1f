"""One reconciliation: observe, advance, judge, propose, submit. Stopping it at any instant loses nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmzero_hpc.baselines.registry import first_proposal
from llmzero_hpc.controller import questions as q
from llmzero_hpc.controller.counsel import Counsel
from llmzero_hpc.controller.housekeeping import space_problem
from llmzero_hpc.controller.jobs import Jobs
from llmzero_hpc.controller.progress import Progress
from llmzero_hpc.controller.scoring import Scoring
from llmzero_hpc.controller.state import SearchState
from llmzero_hpc.search.budget import Account, account
from llmzero_hpc.search.node import BUDGET, NodeStatus, StopDecision
from llmzero_hpc.search.selection import Standstill
from llmzero_hpc.store import control

if TYPE_CHECKING:
    from llmzero_hpc.controller.house import House
    from llmzero_hpc.search.tree import Tree


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tick left behind. `waiting_for` is one line for people."""

    finished: bool
    stop_requested: bool
    waiting_for: str


class Controller:
    """Drives one search, tick by tick."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._directory = house.directory
        self._record = house.directory.record
        self._config = house.directory.record.config
        self._state = SearchState(house)
        progress = Progress(house.directory)
        self._counsel = Counsel(house, self._state, progress, self.account)
        self._jobs = Jobs(house, self._state, progress, self._counsel.owes)
        self._scoring = Scoring(house, self._state, self._jobs)

    @property
    def tree(self) -> Tree:
        """The tree as it is on disk."""
        return self._state.tree

    @property
    def cluster_error(self) -> str:
        """Why the cluster could not be asked in the last tick; empty when it could."""
        return self._jobs.error

    def tick(self) -> Outcome:
        """Reconcile once.

        Raises:
            LeaseError: another controller took the search over; nothing was changed since.
            StorageError: the state cannot be written; the search stands as it was last written.
        """
        self._house.lease.renew()
        self._house.views.poll()
        stop = control.stop_request(self._directory)
        self._take_cancel_requests()
        sight = self._jobs.observe()
        self._scoring.advance(sight)
        self._jobs.submit_open_intents()
        self._scoring.submit_open_intent()
        self._counsel.take_answers()
        self._jobs.cancel_unwanted()
        if stop is not None:
            return self._stopped(stop)
        waiting_for = self._go_on()
        finished = self._is_over() and not waiting_for
        return Outcome(finished, stop_requested=False, waiting_for="the search is over" if finished else waiting_for)

    def words(self) -> dict[int, str]:
        """What the cluster says of phases that wait, by node; for people."""
        return {node.id: words for node in self.tree.active() if (words := self._jobs.words(node))}

    def account(self) -> Account:
        """The budget as it stands."""
        return account(
            self.tree,
            self._config.budget,
            self._record.created_at,
            self._state.clock(),
            api_dollars_used=self._house.agents.spending().dollars,
            shortest_seconds=self._house.cluster.time_limit_grain_seconds,
            devices=self._config.hardware.devices,
            server_device_seconds=self._house.server.device_seconds if self._house.server else 0.0,
            server_devices=self._house.server.devices if self._house.server else 0,
        )

    def _take_cancel_requests(self) -> None:
        for node_id in control.cancel_requests(self._directory):
            if node_id < len(self.tree) and self.tree[node_id].is_active:
                node = replace(self.tree[node_id], cancel_requested=True)
                if node.status in {NodeStatus.PLANNED, NodeStatus.PROPOSED}:
                    self._state.settle(replace(node, status=NodeStatus.CANCELLED))
                else:
                    self._state.put(node)
                self._state.say("cancel", "cancelled on request", node_id)
            control.clear_cancel(self._directory, node_id)

    def _stopped(self, request: control.StopRequest) -> Outcome:
        """Serve a request to stop. One that cannot be served whole, as the cluster cannot be asked, stands."""
        if request is control.StopRequest.JOBS_TOO:
            recalled = self._jobs.recall()
            if self._house.server:
                self._house.server.leave()
            if self.cluster_error:
                return Outcome(finished=False, stop_requested=False, waiting_for=self._waiting_for())
            self._state.say("stop", f"stopped with its {recalled} jobs; their phases can go on")
        control.clear_stop(self._directory)
        return Outcome(finished=False, stop_requested=True, waiting_for="")

    def _go_on(self) -> str:
        """Submit what is proposed, plan what fits, evaluate at the end; says what the search waits for."""
        overdrawn = self.account().overdrawn
        if overdrawn:
            self._end_active_phases(overdrawn)
        elif not self._is_over():
            if control.is_paused(self._directory):
                return f"paused: `llmzero-hpc resume {self._config.name}` goes on"
            if problem := space_problem(self._directory.root, self._config.housekeeping.free_gb):
                return f"no phase is submitted: {problem}"
            self._plan()
            self._counsel.take_answers()
            self._submit_proposed()
        if self._is_over() and self._scoring.is_due():
            paid = self._config.budget.includes_test
            self._scoring.start(self._jobs.allowance(replace(self.account(), seconds_left=None), 1) if paid else None)
        return self._waiting_for()

    def _plan(self) -> None:
        while len(self.tree.active()) < self._config.max_parallel_phases:
            if not len(self.tree):
                first = first_proposal(self._config, q.seed_of(self._config.seed, 0))
                root = q.root_node(self._config, self._record.train_rows, self._state.clock(), first)
                self._state.commit(self.tree.adding(root))
                continue
            if self.account().refusal:
                return
            choice = self._config.growth.next(self.tree)
            if isinstance(choice, Standstill):
                return
            node = q.planned_node(self.tree, choice, self._config, self._state.clock())
            self._state.commit(self.tree.adding(node))
            self._state.say("plan", f"{node.kind.value} under node {choice.parent}", node.id)

    def _submit_proposed(self) -> None:
        for proposed in self.tree.active():
            if proposed.status is not NodeStatus.PROPOSED or proposed.cancel_requested:
                continue
            if self._jobs.is_resting(proposed.attempts):
                continue
            submitted = sum(1 for node in self.tree.active() if node.attempt and not node.attempt.is_over)
            allowance = self._jobs.allowance(self.account(), self._config.max_parallel_phases - submitted)
            if allowance != 0:
                self._jobs.submit(proposed, allowance)
            elif not submitted:
                self._end_active_phases("what is left of the compute budget is too short for a job")

    def _end_active_phases(self, reason: str) -> None:
        for node_id in [node.id for node in self.tree.active()]:
            node = self.tree[node_id]
            if node.status in {NodeStatus.PLANNED, NodeStatus.PROPOSED}:
                status = NodeStatus.EARLY_STOPPED if node.attempts else NodeStatus.CANCELLED
                self._state.settle(replace(node, status=status, problem=reason))
            elif node.stop is None:
                step = node.last_step or node.first_step - 1
                self._counsel.stop(node, StopDecision(step, reason, BUDGET, self._state.clock()))
        self._jobs.cancel_unwanted()

    def _is_over(self) -> bool:
        if self.tree.active() or not len(self.tree):
            return False
        return self.account().refusal is not None or self._config.growth.next(self.tree) is Standstill.EXHAUSTED

    def _waiting_for(self) -> str:
        if self.cluster_error:
            return f"the cluster cannot be asked: {self.cluster_error}"
        active = self.tree.active()
        if active:
            phrases = ((f"node {node.id} {node.status.value}", self._jobs.words(node)) for node in active)
            said = ", ".join(f"{phrase} ({words})" if words else phrase for phrase, words in phrases)
            held = self._house.desk.waits_for
            return f"{said}; {held}" if held else said
        evaluation = self.tree.evaluation
        if evaluation and not evaluation.is_over:
            return "the test score of the best strategy"
        return "the cluster's account of the last jobs" if self._is_over() and self._jobs.unaccounted() else ""
