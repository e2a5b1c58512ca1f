"""One reconciliation: observe, advance, judge, propose, submit. Stopping it at any instant loses nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import Proposal, Repair, StopAnswer
from llmzero_hpc.controller import questions as q
from llmzero_hpc.controller.advance import (
    JobReport,
    Policy,
    advance_attempt,
    advance_evaluation,
    advance_node,
    with_progress,
)
from llmzero_hpc.controller.desk import Question, QuestionKind
from llmzero_hpc.controller.judging import Judging
from llmzero_hpc.controller.progress import Progress
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.search.budget import Account, account
from llmzero_hpc.search.growth import settle
from llmzero_hpc.search.node import CheckpointReference, Ending, Node, NodeStatus, StopDecision, TransitionKind
from llmzero_hpc.search.selection import Standstill, select
from llmzero_hpc.search.tree import Evaluation, Tree
from llmzero_hpc.store import control, events
from llmzero_hpc.store.marker import read_marker
from llmzero_hpc.tasks.base import Split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmzero_hpc.cluster.base import JobObservation
    from llmzero_hpc.controller.desk import Answer
    from llmzero_hpc.controller.house import House
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.node import Attempt
    from llmzero_hpc.store.phase_directory import PhaseDirectory


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tick left behind. `waiting_for` is one line for people."""

    finished: bool
    stop_requested: bool
    waiting_for: str


class Controller:
    """Holds the tree between ticks. Every change is on disk before anything that follows from it is done."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._directory = house.directory
        self._record = house.directory.record
        self._config = house.directory.record.config
        self._clock = house.clock
        self._progress = Progress(house.directory)
        self._judging = Judging(self._config.early_stop)
        self._questions = q.Questions(self._config, self._record.train_rows, self._progress.series)
        self._policy = Policy(
            grace_seconds=self._config.cluster.grace_seconds,
            devices=self._config.hardware.devices,
            max_attempts=self._config.max_attempts,
        )
        self.tree = self._directory.read_tree()
        self.cluster_calls = 0
        self.cluster_error = ""

    def tick(self) -> Outcome:
        """Reconcile once.

        Raises:
            LeaseError: another controller took the search over; nothing was changed since.
            StorageError: the state cannot be written; the search stands as it was last written.
        """
        self._house.lease.renew()
        self._house.views.poll()
        self.cluster_error = ""
        stop_requested = control.take_stop_request(self._directory)
        self._take_cancel_requests()
        self._submit_open_intents()
        self._observe_and_advance()
        self._take_answers()
        self._cancel_unwanted()
        waiting_for = "" if stop_requested else self._go_on()
        finished = self._is_over() and not waiting_for
        return Outcome(finished, stop_requested, "the search is over" if finished else waiting_for)

    def account(self) -> Account:
        """The budget as it stands."""
        return account(self.tree, self._config.budget, self._record.created_at, self._clock())

    # Durable changes

    def _commit(self, tree: Tree) -> None:
        if tree != self.tree:
            self._house.lease.check()
            self._directory.write_tree(tree)
            self.tree = tree

    def _put(self, node: Node) -> None:
        self._commit(self.tree.replacing(node))

    def _say(self, kind: str, message: str, node: int | None = None) -> None:
        events.append_event(self._directory, self._clock(), kind, message, node)

    # Requests of people

    def _take_cancel_requests(self) -> None:
        for node_id in control.cancel_requests(self._directory):
            if node_id < len(self.tree) and self.tree[node_id].is_active:
                node = replace(self.tree[node_id], cancel_requested=True)
                if node.status in {NodeStatus.PLANNED, NodeStatus.PROPOSED}:
                    self._settle(replace(node, status=NodeStatus.CANCELLED))
                else:
                    self._put(node)
                self._say("cancel", "cancelled on request", node_id)
            control.clear_cancel(self._directory, node_id)

    def _cancel_unwanted(self) -> None:
        for node in self.tree.active():
            attempt = node.attempt
            if attempt and attempt.job and not attempt.is_over and (node.stop or node.cancel_requested):
                self._ask_cluster(partial(self._house.cluster.cancel, attempt.job))

    def _ask_cluster(self, call: Callable[[], object]) -> bool:
        self.cluster_calls += 1
        try:
            call()
        except ClusterError as error:
            self.cluster_error = error.message
            return False
        return True

    # Jobs

    def _submit_open_intents(self) -> None:
        """Intents without a job are from before a crash, or from a moment when the cluster could not say."""
        for node in self.tree.active():
            if node.status is NodeStatus.SUBMITTING and node.attempt and not node.attempt.is_over:
                self.cluster_calls += 1
                unwanted = node.stop is not None or node.cancel_requested
                self._put(self._house.submission.recovered(self.tree, node, submit=not unwanted))
        evaluation = self.tree.evaluation
        if evaluation and evaluation.attempts and not evaluation.is_over:
            attempt = evaluation.attempts[-1]
            if attempt.job is None and not attempt.is_over:
                self.cluster_calls += 1
                launched = self._house.submission.recovered_evaluation(self.tree, evaluation)
                self._commit(replace(self.tree, evaluation=launched))

    def _observe_and_advance(self) -> None:
        jobs = [job for attempt in self._live_attempts() if (job := attempt.job)]
        seen: dict[str, JobObservation] = {}
        answered = not jobs or self._ask_cluster(lambda: seen.update(self._house.cluster.observe(jobs)))
        now = self._clock()
        advanced = [
            self._advanced_node(node, seen, now=now, answered=answered)
            for node in self.tree.active()
            if node.attempt is not None and node.status is not NodeStatus.PROPOSED
        ]
        self._take_in([node for node in advanced if not node.status.is_final])
        for node in advanced:
            if node.status.is_final:
                self._settle(node)
        if self.tree.evaluation and not self.tree.evaluation.is_over and self.tree.evaluation.attempts:
            self._advance_evaluation(self.tree.evaluation, seen, now=now, answered=answered)

    def _advanced_node(self, node: Node, seen: Mapping[str, JobObservation], *, now: float, answered: bool) -> Node:
        folder = self._directory.phase(node.id)
        attempt = self._advanced(node.attempts[-1], folder, seen, now=now, answered=answered)
        node = with_progress(node, *self._progress.observe(node))
        hold = attempt.is_over and self._can_be_judged(node) and self._judging.owes(node, now)
        return advance_node(node, attempt, self._policy, hold=hold)

    def _live_attempts(self) -> list[Attempt]:
        newest = [node.attempt for node in self.tree.active()]
        if self.tree.evaluation and self.tree.evaluation.attempts:
            newest.append(self.tree.evaluation.attempts[-1])
        return [attempt for attempt in newest if attempt and not attempt.is_over]

    def _advanced(
        self,
        attempt: Attempt,
        folder: PhaseDirectory,
        seen: Mapping[str, JobObservation],
        *,
        now: float,
        answered: bool,
    ) -> Attempt:
        marker = read_marker(folder.attempt(attempt.number).marker)
        return advance_attempt(attempt, JobReport(now, answered, seen.get(attempt.name), marker), self._policy)

    def _take_in(self, nodes: list[Node]) -> None:
        """All that goes on, in one commit."""
        before = self.tree
        self._commit(before.replacing(*nodes))
        for node in nodes:
            ending = node.attempt.ending if node.attempt else None
            if node.status is NodeStatus.PROPOSED and ending:
                self._say("phase", f"attempt ended as {ending.value}; the phase goes on in another", node.id)
            elif node.status is NodeStatus.RUNNING and before[node.id].status is not NodeStatus.RUNNING:
                self._say("phase", "running", node.id)

    def _settle(self, node: Node) -> None:
        self._commit(settle(self.tree, node))
        self._progress.forget(node.id)
        score = "no score" if node.score is None else f"best validation {node.score:.4f}"
        self._say("phase", f"{node.status.value}, {score}" + (f": {node.problem}" if node.problem else ""), node.id)
        self._house.views.request()
        if node.status is NodeStatus.FAILED:
            self._pause_if_stalled()

    def _pause_if_stalled(self) -> None:
        """Phases that fail one after another have a cause that no configuration mends: that is for a person to see."""
        newest = [node for node in self.tree if node.status.is_final][-self._config.pause_after_failures :]
        stalled = len(newest) == self._config.pause_after_failures and all(
            node.status is NodeStatus.FAILED for node in newest
        )
        if stalled and not control.is_paused(self._directory):
            control.request_pause(self._directory)
            log = self._directory.phase(newest[-1].id).path
            self._say("stall", f"the last {len(newest)} phases failed, so the search is paused; see {log}")

    # Agents

    def _can_be_judged(self, node: Node) -> bool:
        return any(other.id != node.id for other in self.tree.scored())

    def _take_answers(self) -> None:
        """Ask what is due now, take what came, until nothing comes at once any more."""
        now = self._clock()
        while True:
            self._ask_what_is_due(now)
            answers = self._house.desk.take()
            if not answers:
                return
            for question, answer in answers.items():
                node = self.tree[question.node]
                if question.kind is QuestionKind.JUDGE:
                    self._take_judgement(node, question.step, answer, now)
                elif node.status is NodeStatus.PLANNED:
                    self._take_proposal(node, answer)

    def _ask_what_is_due(self, now: float) -> None:
        agents, desk = self._house.agents, self._house.desk
        for node in self.tree.active():
            if node.status is NodeStatus.PLANNED:
                if node.kind is TransitionKind.DEBUG:
                    failure = self._questions.failure(self.tree, node, self._progress.log_tail(node.repairs))
                    desk.ask(Question(QuestionKind.REPAIR, node.id), partial(agents.repair, failure))
                else:
                    proposal = self._questions.proposal(self.tree, node, self.account().iterations_left)
                    desk.ask(Question(QuestionKind.PROPOSE, node.id), partial(agents.propose, proposal))
                continue
            step = self._judging.due(node, now) if self._can_be_judged(node) else None
            if step is not None and (stop := self._questions.stop(self.tree, node, step)) is not None:
                desk.ask(Question(QuestionKind.JUDGE, node.id, step), partial(agents.judge, stop))

    def _take_judgement(self, node: Node, step: int, answer: Answer, now: float) -> None:
        self._judging.judged(node.id, step, now)
        value = answer.value
        if not isinstance(value, StopAnswer):
            self._say("agent", f"the early stopper failed, so the phase continues: {answer.error}", node.id)
        elif value.stop and node.is_active and node.stop is None:
            self._stop(node, StopDecision(step, value.reason, value.author, now))

    def _stop(self, node: Node, decision: StopDecision) -> None:
        self._put(
            replace(node, stop=decision, checkpoints=tuple(c for c in node.checkpoints if c.step <= decision.step))
        )
        self._say("early_stop", f"stopped at step {decision.step}: {decision.reason}", node.id)

    def _take_proposal(self, node: Node, answer: Answer) -> None:
        def trainer_problems(configuration: Configuration) -> list[str]:
            return self._house.trainer.problems(self._config, configuration)

        if node.kind is TransitionKind.DEBUG:
            failure = self._questions.failure(self.tree, node, "")
            repair = answer.value
            problems = q.repair_problems(failure, repair, trainer_problems) if isinstance(repair, Repair) else None
            if problems != [] or not isinstance(repair, Repair):
                self._say("agent", f"repair not usable: {problems or answer.error}", node.id)
                repair = q.fallback_repair(failure)
            self._put(q.with_repair(node, failure, repair, self._record.train_rows))
        else:
            request = self._questions.proposal(self.tree, node, self.account().iterations_left)
            proposal = answer.value
            problems = (
                q.proposal_problems(request, proposal, trainer_problems) if isinstance(proposal, Proposal) else None
            )
            if problems != [] or not isinstance(proposal, Proposal):
                self._say("agent", f"proposal not usable: {problems or answer.error}", node.id)
                proposal = q.fallback_proposal(request)
            self._put(q.with_proposal(node, request, proposal))
        rationale = self.tree[node.id].rationale
        self._say("proposal", rationale.diagnosis if rationale else "", node.id)

    # Growth

    def _go_on(self) -> str:
        """Submit what is proposed, plan what fits, evaluate at the end; says what the search waits for."""
        overdrawn = self.account().overdrawn
        if overdrawn:
            self._end_active_phases(overdrawn)
        elif control.is_paused(self._directory):
            return f"paused: `llmzero-hpc resume {self._config.name}` goes on"
        else:
            self._plan()
            self._take_answers()
            self._submit_proposed()
        if self._is_over() and self._evaluation_is_due():
            self._evaluate()
        return self._waiting_for()

    def _plan(self) -> None:
        while len(self.tree.active()) < self._config.max_parallel_phases:
            if not len(self.tree):
                self._commit(self.tree.adding(q.root_node(self._config, self._record.train_rows, self._clock())))
                continue
            if self.account().refusal:
                return
            choice = select(self.tree, self._config.rules)
            if isinstance(choice, Standstill):
                return
            node = q.planned_node(self.tree, choice, self._config, self._clock())
            self._commit(self.tree.adding(node))
            self._say("plan", f"{node.kind.value} under node {choice.parent}", node.id)

    def _submit_proposed(self) -> None:
        for proposed in self.tree.active():
            if proposed.status is NodeStatus.PROPOSED and not proposed.cancel_requested:
                node = self._house.submission.intended(proposed)
                self._put(node)
                self.cluster_calls += 1
                self._put(self._house.submission.launched(self.tree, node))
                self._say("submit", node.attempts[-1].name, node.id)

    def _end_active_phases(self, reason: str) -> None:
        for node_id in [node.id for node in self.tree.active()]:
            node = self.tree[node_id]
            if node.status in {NodeStatus.PLANNED, NodeStatus.PROPOSED}:
                status = NodeStatus.EARLY_STOPPED if node.attempts else NodeStatus.CANCELLED
                self._settle(replace(node, status=status, problem=reason))
            elif node.stop is None:
                step = node.last_step or node.first_step - 1
                self._stop(node, StopDecision(step, reason, "budget", self._clock()))
        self._cancel_unwanted()

    def _is_over(self) -> bool:
        if self.tree.active() or not len(self.tree):
            return False
        return self.account().refusal is not None or select(self.tree, self._config.rules) is Standstill.EXHAUSTED

    def _waiting_for(self) -> str:
        if self.cluster_error:
            return f"the cluster cannot be asked: {self.cluster_error}"
        active = self.tree.active()
        if active:
            return ", ".join(f"node {node.id} {node.status.value}" for node in active)
        evaluation = self.tree.evaluation
        return "the test score of the best strategy" if evaluation and not evaluation.is_over else ""

    # The test score, once

    def _evaluation_is_due(self) -> bool:
        has_test = getattr(self._config.task, "test", True) is not None
        return has_test and self.tree.best() is not None and not (self.tree.evaluation and self.tree.evaluation.is_over)

    def _evaluate(self) -> None:
        evaluation = self.tree.evaluation
        best = self.tree.best()
        if evaluation is None and best is not None and best.best is not None:
            evaluation = Evaluation(CheckpointReference(best.id, best.best.step), Split.TEST.value)
        if evaluation is None or (evaluation.attempts and not evaluation.attempts[-1].is_over):
            return
        intended = self._house.submission.intended_evaluation(evaluation)
        self._commit(replace(self.tree, evaluation=intended))
        self.cluster_calls += 1
        launched = self._house.submission.launched_evaluation(self.tree, intended)
        self._commit(replace(self.tree, evaluation=launched))
        self._say("evaluation", "test score of the best strategy", intended.checkpoint.node)

    def _advance_evaluation(
        self, evaluation: Evaluation, seen: Mapping[str, JobObservation], *, now: float, answered: bool
    ) -> None:
        folder = self._house.submission.evaluation_folder(evaluation)
        attempt = self._advanced(evaluation.attempts[-1], folder, seen, now=now, answered=answered)
        result = self._house.submission.evaluation_result(evaluation) if attempt.ending is Ending.COMPLETED else None
        evaluation = advance_evaluation(evaluation, attempt, result, self._policy)
        self._commit(replace(self.tree, evaluation=evaluation))
        if evaluation.is_over:
            score = "no test score" if evaluation.score is None else f"test score {evaluation.score:.4f}"
            self._say("evaluation", f"{score} {evaluation.problem}".strip(), evaluation.checkpoint.node)
            self._house.views.request()
