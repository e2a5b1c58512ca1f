"""The skill-based agent: what the search asks of it becomes the next event of its conversation."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from llmzero_hpc.agents.base import (
    Agents,
    AgentUnavailableError,
    Proposal,
    ProposalRequest,
    StopAnswer,
    WorkDoneError,
)
from llmzero_hpc.agents.llm import skill_prompts
from llmzero_hpc.agents.llm.failures import (
    CapReachedError,
    RequestRefusedError,
    UnsupportedError,
    UnusableReplyError,
)
from llmzero_hpc.agents.llm.wire import Wire
from llmzero_hpc.baselines.skills.conversation import AGENT, Conversation, Exchange, messages, opening
from llmzero_hpc.baselines.skills.steps import Decided, between_phases, during_phase
from llmzero_hpc.baselines.skills.tools import SKILLS, calls_of, offered, written_form
from llmzero_hpc.errors import AgentError, StorageError
from llmzero_hpc.search.node import Rationale
from llmzero_hpc.store.agent_calls import CallRequest, ToolResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.agents.base import FailureRequest, Repair, StopRequest
    from llmzero_hpc.agents.llm.parts import ModelParts
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.store.agent_calls import Call, CallReply, Spending, ToolCall

ROUNDS = 12
"""Replies to one event, at most."""
_CALL_A_TOOL = "No tool was called. Call one of: {names}. Where that cannot be, reply with one JSON object {form}."
_FORM = '{"tool": name, "arguments": {...}}'
_CUT_OFF = "That reply was cut off at the limit of tokens: think and write less. "

_Value = TypeVar("_Value")


class SkillAgent(Agents):
    """One model, one conversation, one phase at a time; whoever asks while it speaks waits.

    While the model cannot be asked, nobody answers for it: the search waits. When the money is spent, or the
    conversation has become too long for the model, its work is over.

    Args:
        config: the search.
        parts: what the model is asked with.
        train_rows: rows of the training split.
        refused: why the trainer would refuse a configuration.
    """

    def __init__(
        self,
        config: SearchConfig,
        parts: ModelParts,
        train_rows: int,
        refused: Callable[[Configuration], list[str]],
    ) -> None:
        self._config = config
        self._parts = parts
        self._train_rows = train_rows
        self._refused = refused
        self._wire = Wire(parts.settings, parts.client, parts.ledger)
        self._conversation = Conversation(parts.log)
        self._tools = True
        self._lock = threading.Lock()

    def propose(self, request: ProposalRequest) -> Proposal:
        """The phase that the model submits.

        Raises:
            WorkDoneError: it ended its work, or cannot go on.
            AgentUnavailableError: it cannot be asked now.
            UnusableReplyError: it submitted nothing that could be trained.
        """
        if request.child is None:
            raise ValueError("a conversation belongs to planned phases")
        event = self._clean(skill_prompts.between_phases(request, self._parts.settings.prompts))
        act = partial(between_phases, request=request, config=self._config, author=self._author, refused=self._refused)
        try:
            decided = self._decided(self._conversation.turn(request.child, 0), event, act)
        except (CapReachedError, RequestRefusedError) as error:
            raise WorkDoneError(Rationale(self._author, f"It cannot go on: {error.message}")) from None
        if isinstance(decided, WorkDoneError):
            raise decided
        return decided

    def judge(self, request: StopRequest) -> StopAnswer:
        """As the model says; CONTINUE where it decides nothing."""
        newest = request.series.rows[-1].step if request.series.rows else request.node.first_step
        event = self._clean(skill_prompts.during_phase(request, self._config, self._parts.settings.prompts))
        act = partial(during_phase, request=request, event=event, author=self._author)
        try:
            return self._decided(self._conversation.turn(request.node.id, newest), event, act)
        except AgentError as error:
            return StopAnswer(stop=False, reason=f"it did not decide: {error.message}", author=self._author)

    def repair(self, request: FailureRequest) -> Repair:
        """Never asked for: what follows a failure is a phase like any other.

        Raises:
            AgentError: always.
        """
        raise AgentError(f"{self._author} repairs no phase (node {request.node.id})")

    def spending(self) -> Spending:
        """At the prices of the settings; of each call the whole conversation before it is paid for."""
        return self._parts.ledger.spending()

    @property
    def _author(self) -> str:
        return self._parts.settings.model

    def _decided(self, turn: Call, event: str, act: Callable[[ToolCall], str | Decided[_Value]]) -> _Value:
        """Go on with the conversation until something is decided; what is on disk already is not asked for again."""
        try:
            with self._lock:
                return self._led(turn, event, act)
        except StorageError as error:
            raise AgentUnavailableError(error.message, error.next_step) from None

    def _led(self, turn: Call, event: str, act: Callable[[ToolCall], str | Decided[_Value]]) -> _Value:
        said = list(self._conversation.before(turn))
        results, user = opening(said, event)
        for number in range(1, ROUNDS + 1):
            request, reply = turn.request(number), turn.reply(number)
            if request is None or reply is None:
                request, reply = self._asked(turn, number, said, request, results, user)
            said.append(Exchange(request, reply))
            decided, results, user = _carried_out(reply, act)
            if decided is not None:
                with suppress(StorageError):  # it follows from what is on disk already
                    turn.conclude(None, ())
                return decided.value
        problems = (f"nothing was decided in {ROUNDS} replies",)
        with suppress(StorageError):
            turn.conclude(None, problems)
        raise UnusableReplyError(problems)

    def _asked(
        self,
        turn: Call,
        number: int,
        said: list[Exchange],
        request: CallRequest | None,
        results: tuple[ToolResult, ...],
        user: str,
    ) -> tuple[CallRequest, CallReply]:
        while True:
            tools = self._tools
            form = "" if tools else written_form()
            system = skill_prompts.system(self._config, self._train_rows, form, self._parts.settings.prompts)
            request = CallRequest(
                agent=AGENT,
                model=self._parts.settings.model,
                endpoint=self._parts.settings.base_url or "agents.serve",
                asked_at=self._wire.now(),
                system=self._clean(system),
                # What was sent before a kill may have been answered: it is sent again as it was.
                user=self._clean(user) if request is None else request.user,
                images=(),
                structured=tools,
                results=self._cleaned(results) if request is None else request.results,
            )
            sent = messages(request.system, [*said, Exchange(request, None)], tools=tools)
            try:
                reply = self._wire.send(turn, number, request, sent, {}, tools=offered() if tools else ())
            except UnsupportedError as error:
                if not tools or error.feature != "tools":
                    raise
                self._tools = False
            else:
                return request, reply

    def _cleaned(self, results: tuple[ToolResult, ...]) -> tuple[ToolResult, ...]:
        return tuple(ToolResult(result.call, self._clean(result.text)) for result in results)

    def _clean(self, text: str) -> str:
        return self._parts.key.removed_from(text)


def _carried_out(
    reply: CallReply, act: Callable[[ToolCall], str | Decided[_Value]]
) -> tuple[Decided[_Value] | None, tuple[ToolResult, ...], str]:
    """What a reply decides; else what its calls brought, and what is said besides."""
    calls = calls_of(reply)
    if not calls:
        problem = _CUT_OFF if reply.finish_reason == "length" else ""
        return None, (), problem + _CALL_A_TOOL.format(names=", ".join(SKILLS), form=_FORM)
    results = []
    for call in calls:
        found = act(call)
        if not isinstance(found, str):
            return found, (), ""
        results.append(ToolResult(call.id, found))
    return None, tuple(results), ""
