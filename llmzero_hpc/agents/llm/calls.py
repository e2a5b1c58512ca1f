"""One question to a model, from the prompt to an answer that may be used: found on disk, or asked, twice at most."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from llmzero_hpc.agents.base import FailureRequest, ProposalRequest, StopRequest
from llmzero_hpc.agents.llm import prompts, replies
from llmzero_hpc.agents.llm.client import Message
from llmzero_hpc.agents.llm.completion import Completion
from llmzero_hpc.agents.llm.failures import UnsupportedError, UnusableReplyError
from llmzero_hpc.agents.llm.prompts import AgentName
from llmzero_hpc.agents.llm.wire import Wire
from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.agent_calls import CallReply, CallRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.agents.llm.client import Client
    from llmzero_hpc.agents.llm.ledger import Ledger
    from llmzero_hpc.agents.llm.prompts import Prompt
    from llmzero_hpc.agents.llm.secret import Key
    from llmzero_hpc.agents.llm.serve import ServedClient
    from llmzero_hpc.sections import LanguageModelAgents
    from llmzero_hpc.store.agent_calls import Call, CallLog

ROUNDS = 2
"""A question, and once more with what was wrong with the reply."""
_SHOWN_BACK = 8000
"""Characters of a reply that its model is shown again."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the endpoint is known, or not known not, to be able to do."""

    vision: bool
    structured: bool

    def without(self, other: Abilities) -> Abilities:
        """What both can do."""
        return Abilities(vision=self.vision and other.vision, structured=self.structured and other.structured)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What an agent is asked about a node."""

    agent: AgentName
    node: int
    request: ProposalRequest | StopRequest | FailureRequest


class Calls:
    """Asks for an agent. Safe from several threads.

    Args:
        settings: of the model.
        client: who carries questions to the endpoint.
        log: where calls are kept.
        ledger: where money is counted.
        key: kept out of all that is sent as text or written.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: LanguageModelAgents,
        client: Client | ServedClient,
        log: CallLog,
        ledger: Ledger,
        key: Key,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._wire = Wire(settings, client, ledger, clock)
        self._log = log
        self._key = key
        self._abilities = Abilities(vision=settings.vision, structured=settings.structured != "plain")

    def answer(
        self,
        inquiry: Inquiry,
        kind: type[replies.Reply],
        decide: Callable[[replies.Reply], _Answer],
    ) -> _Answer:
        """The model's answer, as `decide` makes it of a reply.

        Raises:
            AgentUnavailableError: the model cannot be asked now.
            UnusableReplyError: it replied twice, and neither reply may be used.
            AgentError: the endpoint refuses the question.
            ConfigurationError, MissingDependencyError: the prompt cannot be rendered.
            StorageError: the call cannot be noted, so it is not made.
        """
        call = self._log.call(inquiry.node, inquiry.agent, self._identity(inquiry, kind))
        problems: tuple[str, ...] = ()
        earlier: tuple[Message, ...] = ()
        for number in range(1, ROUNDS + 1):
            reply = call.reply(number) or self._asked(call, number, inquiry, kind, earlier)
            parsed = None
            try:
                parsed = _parsed(kind, reply)
                answer = decide(parsed)
            except UnusableReplyError as error:
                problems = error.problems
                self._conclude(call, parsed, problems)
                earlier += _corrections(reply, problems)
            else:
                self._conclude(call, parsed, ())
                return answer
        raise UnusableReplyError(problems)

    def _identity(self, inquiry: Inquiry, kind: type[replies.Reply]) -> str:
        """The same for the same question, however the endpoint has to be asked: what is on disk is found again."""
        prompt = self._render(inquiry, kind, Abilities(vision=False, structured=True))
        parts = (inquiry.agent, self._settings.model, self._settings.vision, prompt.system, prompt.user)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def _render(self, inquiry: Inquiry, kind: type[replies.Reply], abilities: Abilities) -> Prompt:
        form = "" if abilities.structured else json.dumps(replies.schema(kind))
        prompt = prompts.render(
            inquiry.agent,
            inquiry.request,
            vision=abilities.vision,
            own=self._settings.prompts,
            reply_format=form,
        )
        clean = self._key.removed_from
        return replace(prompt, system=clean(prompt.system), user=clean(prompt.user))

    def _asked(
        self,
        call: Call,
        number: int,
        inquiry: Inquiry,
        kind: type[replies.Reply],
        earlier: tuple[Message, ...],
    ) -> CallReply:
        """Ask as far as the endpoint can be asked, and remember what it cannot do."""
        abilities = self._abilities
        while True:
            try:
                reply = self._sent(call, number, inquiry, kind, earlier, abilities)
            except UnsupportedError as error:
                abilities = replace(abilities, **{error.feature: False})
                if error.certain:
                    self._abilities = self._abilities.without(abilities)
            else:
                self._abilities = self._abilities.without(abilities)
                return reply

    def _sent(
        self,
        call: Call,
        number: int,
        inquiry: Inquiry,
        kind: type[replies.Reply],
        earlier: tuple[Message, ...],
        abilities: Abilities,
    ) -> CallReply:
        prompt = self._render(inquiry, kind, abilities)
        images = {image.name: image.png for image in prompt.images}
        messages = (Message("system", prompt.system), Message("user", prompt.user, tuple(images.values())), *earlier)
        request = CallRequest(
            agent=inquiry.agent,
            model=self._settings.model,
            endpoint=self._settings.base_url or "agents.serve",
            asked_at=self._wire.now(),
            system=prompt.system,
            user=messages[-1].text,
            images=tuple(images),
            structured=abilities.structured,
        )
        schema = replies.schema(kind) if abilities.structured else None
        return self._wire.send(call, number, request, messages, images, schema)

    def _conclude(self, call: Call, parsed: Any, problems: tuple[str, ...]) -> None:
        # It follows from what is on disk already, so a disk that refuses changes nothing.
        with suppress(StorageError):
            call.conclude(None if parsed is None else parsed.model_dump(mode="json"), problems)


def _parsed(kind: type[replies.Reply], reply: CallReply) -> replies.Reply:
    completion = Completion(
        content=reply.content,
        finish_reason=reply.finish_reason,
        model=reply.model,
        usage=reply.usage,
        seconds=reply.seconds,
        refusal=reply.refusal,
        tool_calls=reply.tool_calls,
    )
    if completion.problem:
        raise UnusableReplyError([completion.problem])
    return replies.parsed(kind, reply.content)


def _corrections(reply: CallReply, problems: tuple[str, ...]) -> tuple[Message, ...]:
    """The unusable reply, and what is wrong with it, for the next round."""
    said = reply.content[:_SHOWN_BACK] or "(nothing)"
    listed = "\n".join(f"- {problem}" for problem in problems)
    text = f"That reply cannot be used:\n{listed}\nReply once more, whole, with one JSON object in the same form."
    return (Message("assistant", said), Message("user", text))
