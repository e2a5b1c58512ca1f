"""One round of a call over the wire: noted before it is sent, counted and kept before anything is made of it."""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from llmzero_hpc.agents.llm.ledger import dollars, guessed
from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.agent_calls import CallFailure, CallReply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmzero_hpc.agents.llm.client import Client, Message
    from llmzero_hpc.agents.llm.completion import Completion
    from llmzero_hpc.agents.llm.ledger import Ledger
    from llmzero_hpc.agents.llm.serve import ServedClient
    from llmzero_hpc.sections import LanguageModelAgents
    from llmzero_hpc.store.agent_calls import Call, CallRequest


class Wire:
    """Safe from several threads.

    Args:
        settings: of the model.
        client: who carries questions to the endpoint.
        ledger: where money is counted.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: LanguageModelAgents,
        client: Client | ServedClient,
        ledger: Ledger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._client = client
        self._ledger = ledger
        self._clock = clock
        self._unsaved: list[partial[None]] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    def send(
        self,
        call: Call,
        number: int,
        request: CallRequest,
        messages: Sequence[Message],
        images: Mapping[str, bytes],
        schema: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> CallReply:
        """The reply to a round: the one that is on disk, should two have asked at once.

        Raises:
            CapReachedError: the search may not spend what it could cost.
            StorageError: the round cannot be noted, so it is not sent.
            EndpointError, UnsupportedError, RequestRefusedError: as `Client.ask`.
        """
        characters = sum(_length(message) for message in messages)
        kept: list[CallReply] = []

        def keep(completion: Completion) -> None:
            said = len(completion.content) + sum(len(one.arguments) for one in completion.wanted)
            usage = completion.usage or guessed(characters, len(images), said)
            reply = CallReply(
                model=completion.model,
                content=completion.content,
                finish_reason=completion.finish_reason,
                usage=usage,
                dollars=dollars(usage, self._settings.prices),
                asked_at=request.asked_at,
                seconds=completion.seconds,
                refusal=completion.refusal,
                tool_calls=completion.tool_calls,
                wanted=completion.wanted if tools else (),
            )
            kept.append(reply)
            self._ledger.add(call.node, call.agent, reply)
            self._save(call, number, reply)

        self._save_what_was_not()
        form = len(json.dumps(schema)) + (len(json.dumps(list(tools))) if tools else 0)
        with self._ledger.reserved(characters + form, len(images)):
            call.ask(number, request, images)
            self._client.ask(
                messages,
                schema,
                keep=keep,
                failed=lambda seconds, message: call.fail(CallFailure(self._clock(), seconds, message)),
                tools=tools,
            )
        return call.reply(number) or kept[-1]

    def _save(self, call: Call, number: int, reply: CallReply) -> None:
        """Keep a reply; where the disk refuses, it is used all the same and written later, so that it is not lost."""
        save = partial(call.answer, number, reply)
        try:
            save()
        except StorageError:
            with self._lock:
                self._unsaved.append(save)

    def _save_what_was_not(self) -> None:
        with self._lock:
            waiting, self._unsaved = self._unsaved, []
        while waiting:
            try:
                waiting[-1]()
            except StorageError:
                with self._lock:
                    self._unsaved += waiting
                raise
            waiting.pop()


def _length(message: Message) -> int:
    return len(message.text) + sum(len(call.name) + len(call.arguments) for call in message.wanted)
