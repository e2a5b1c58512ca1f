"""The agents that ask a language model, with the playbook behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import Agents, AgentUnavailableError, StopAnswer
from llmzero_hpc.agents.llm import decisions
from llmzero_hpc.agents.llm.calls import Inquiry
from llmzero_hpc.agents.llm.replies import EarlyStopperReply, ErrorAnalyzerReply, ProposerReply
from llmzero_hpc.errors import LLMZeroError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.agents.base import FailureRequest, Proposal, ProposalRequest, Repair, StopRequest
    from llmzero_hpc.agents.llm.calls import Calls
    from llmzero_hpc.agents.llm.ledger import Ledger
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.node import Rationale
    from llmzero_hpc.sections import LanguageModelAgents
    from llmzero_hpc.store.agent_calls import Spending

_SHOWN_REASON = 200


class LanguageModel(Agents):
    """Asks the model for each agent that the settings leave to it.

    Replies that may not be used twice, and questions that the endpoint refuses, are answered by the playbook, whose
    name is then on the rationale. While the model cannot be asked at all, it is the settings' `fallback` that says
    whether the playbook answers or the question waits. A phase that is judged continues in either case.

    Args:
        settings: of the model.
        calls: who asks it.
        ledger: where its cost is counted.
        playbook: who answers instead.
        refused: why the trainer would refuse a configuration.
    """

    def __init__(
        self,
        settings: LanguageModelAgents,
        calls: Calls,
        ledger: Ledger,
        playbook: Agents,
        refused: Callable[[Configuration], list[str]],
    ) -> None:
        self._settings = settings
        self._calls = calls
        self._ledger = ledger
        self._playbook = playbook
        self._refused = refused

    def propose(self, request: ProposalRequest) -> Proposal:
        """As the model says, within what is allowed."""
        if self._settings.proposer == "playbook":
            return self._playbook.propose(request)
        node = request.parent.id if request.child is None else request.child
        try:
            return self._calls.answer(
                Inquiry("proposer", node, request),
                ProposerReply,
                lambda reply: decisions.proposal(reply, request, self._settings.model, self._refused),
            )
        except LLMZeroError as error:
            self._wait_if_told_to(error)
            answer = self._playbook.propose(request)
            return replace(answer, rationale=self._instead(answer.rationale, error))

    def judge(self, request: StopRequest) -> StopAnswer:
        """As the model says; CONTINUE where it says nothing that may be used."""
        if self._settings.early_stopper == "playbook":
            return self._playbook.judge(request)
        try:
            return self._calls.answer(
                Inquiry("early_stopper", request.node.id, request),
                EarlyStopperReply,
                lambda reply: decisions.stop(reply, request, self._settings.model),
            )
        except LLMZeroError as error:
            reason = f"{self._settings.model} gave no judgement that counts: {error.message[:_SHOWN_REASON]}"
            return StopAnswer(stop=False, reason=reason, author=self._settings.model)

    def repair(self, request: FailureRequest) -> Repair:
        """As the model says, within what is allowed."""
        if self._settings.error_analyzer == "playbook":
            return self._playbook.repair(request)
        node = request.node.id if request.child is None else request.child
        try:
            return self._calls.answer(
                Inquiry("error_analyzer", node, request),
                ErrorAnalyzerReply,
                lambda reply: decisions.repair(reply, request, self._settings.model, self._refused),
            )
        except LLMZeroError as error:
            self._wait_if_told_to(error)
            answer = self._playbook.repair(request)
            return replace(answer, rationale=self._instead(answer.rationale, error))

    def spending(self) -> Spending:
        """At the prices of the settings."""
        return self._ledger.spending()

    def _wait_if_told_to(self, error: LLMZeroError) -> None:
        if isinstance(error, AgentUnavailableError) and self._settings.fallback == "wait":
            raise error

    def _instead(self, rationale: Rationale, error: LLMZeroError) -> Rationale:
        """The playbook's words, with why it was asked."""
        reason = error.message[:_SHOWN_REASON].rstrip(".")
        return replace(rationale, diagnosis=f"Instead of {self._settings.model} ({reason}): {rationale.diagnosis}")
