"""The agents' part of a tick: who is asked what, and what is made of the answers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import Proposal, Repair, StopAnswer, WorkDoneError
from llmzero_hpc.agents.checks import proposal_problems, repair_problems
from llmzero_hpc.controller import questions as q
from llmzero_hpc.controller.desk import Question, QuestionKind
from llmzero_hpc.controller.judging import Judging
from llmzero_hpc.search.node import Node, NodeStatus, StopDecision, TransitionKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.controller.desk import Answer
    from llmzero_hpc.controller.house import House
    from llmzero_hpc.controller.progress import Progress
    from llmzero_hpc.controller.state import SearchState
    from llmzero_hpc.search.budget import Account
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.tree import Tree


class Counsel:
    """Asks the agents in the background and checks what they say; an agent that fails never stops a run."""

    def __init__(self, house: House, state: SearchState, progress: Progress, account: Callable[[], Account]) -> None:
        self._state = state
        self._progress = progress
        self._account = account
        self._agents = house.agents
        self._desk = house.desk
        self._trainer = house.trainer
        self._config = house.directory.record.config
        self._train_rows = house.directory.record.train_rows
        self._judging = Judging(self._config.judging)
        self._questions = q.Questions(self._config, self._train_rows, progress.series)

    def take_answers(self) -> None:
        """Ask what is due now, take what came, until nothing comes at once any more."""
        now = self._state.clock()
        while True:
            self._ask_what_is_due(now)
            answers = self._desk.take()
            if not answers:
                return
            for question, answer in answers.items():
                node = self._state.tree[question.node]
                if question.kind is QuestionKind.JUDGE:
                    self._take_judgement(node, question.step, answer, now)
                elif node.status is not NodeStatus.PLANNED:
                    continue
                elif node.kind is TransitionKind.DEBUG:
                    self._take_repair(node, answer)
                else:
                    self._take_proposal(node, answer)

    def owes(self, node: Node, now: float) -> bool:
        """Whether a node whose job has ended must wait for judgements before it is final."""
        return self._can_be_judged(node) and self._judging.owes(node, now)

    def stop(self, node: Node, decision: StopDecision) -> None:
        """Put a decision to end a phase on disk; only then may its job be cancelled."""
        self._state.put(
            replace(node, stop=decision, checkpoints=tuple(c for c in node.checkpoints if c.step <= decision.step))
        )
        self._state.say("early_stop", f"stopped at step {decision.step}: {decision.reason}", node.id)

    def _can_be_judged(self, node: Node) -> bool:
        return any(other.id != node.id for other in self._state.tree.scored())

    def _ask_what_is_due(self, now: float) -> None:
        tree, agents, desk = self._state.tree, self._agents, self._desk
        asked: set[tuple[TransitionKind, int | None]] = set()
        for node in tree.active():
            if node.status is NodeStatus.PLANNED:
                # Of two siblings the second is asked for once the first is known, or they would be the same.
                family = (node.kind, None if node.kind is TransitionKind.SCRATCH else node.parent)
                if family in asked:
                    continue
                asked.add(family)
                if node.kind is TransitionKind.DEBUG:
                    log, marker = self._progress.log_tail(node.repairs), self._progress.marker(node.repairs)
                    failure = self._questions.failure(tree, node, log, marker)
                    desk.ask(Question(QuestionKind.REPAIR, node.id), partial(agents.repair, failure))
                else:
                    left = self._account().iterations_left
                    proposal = self._questions.proposal(tree, node, left, self._log_of_failure(tree))
                    desk.ask(Question(QuestionKind.PROPOSE, node.id), partial(agents.propose, proposal))
                continue
            step = self._judging.due(node, now) if self._can_be_judged(node) else None
            if step is not None and (stop := self._questions.stop(tree, node, step)) is not None:
                desk.ask(Question(QuestionKind.JUDGE, node.id, step), partial(agents.judge, stop))

    def _log_of_failure(self, tree: Tree) -> str:
        """For those who repair nothing, but choose what comes after a failure."""
        newest = next((node for node in reversed(tree.nodes) if node.status.is_final), None)
        is_failure = newest is not None and newest.status is NodeStatus.FAILED
        return self._progress.log_tail(newest.id) if newest and is_failure and self._config.growth.leaves_choice else ""

    def _take_judgement(self, node: Node, step: int, answer: Answer, now: float) -> None:
        node = replace(node, judged_step=step, judged_at=now)
        value = answer.value
        if isinstance(value, StopAnswer) and value.stop and node.is_active and node.stop is None:
            # One commit: a step that counts as judged is not judged again, so its decision must not be lost.
            self.stop(node, StopDecision(step, value.reason, value.author, now))
            return
        self._state.put(node)
        if not isinstance(value, StopAnswer):
            self._state.say("agent", f"the early stopper failed, so the phase continues: {answer.error}", node.id)

    def _take_repair(self, node: Node, answer: Answer) -> None:
        failure = self._questions.failure(self._state.tree, node, "")
        repair = answer.value
        problems = repair_problems(failure, repair, self._trainer_problems) if isinstance(repair, Repair) else None
        if problems != [] or not isinstance(repair, Repair):
            self._state.say("agent", f"repair not usable: {problems or answer.error}", node.id)
            repair = q.fallback_repair(failure)
        self._accept(q.with_repair(node, failure, repair, self._train_rows))

    def _take_proposal(self, node: Node, answer: Answer) -> None:
        if isinstance(answer.error, WorkDoneError):
            done = replace(node, status=NodeStatus.CANCELLED, rationale=answer.error.rationale)
            self._state.settle(replace(done, problem="its agent has ended its work"))
            return
        request = self._questions.proposal(self._state.tree, node, self._account().iterations_left)
        proposal = answer.value
        problems = (
            proposal_problems(request, proposal, self._trainer_problems) if isinstance(proposal, Proposal) else None
        )
        if problems != [] or not isinstance(proposal, Proposal):
            self._state.say("agent", f"proposal not usable: {problems or answer.error}", node.id)
            proposal = q.fallback_proposal(request)
        self._accept(q.with_proposal(node, request, proposal))

    def _accept(self, node: Node) -> None:
        self._state.put(node)
        self._state.say("proposal", node.rationale.diagnosis if node.rationale else "", node.id)

    def _trainer_problems(self, configuration: Configuration) -> list[str]:
        return self._trainer.problems(self._config, configuration)
