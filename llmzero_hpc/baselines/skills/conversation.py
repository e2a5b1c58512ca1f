"""The one conversation of a skill agent: kept in the calls of its phases, read back from there, never kept elsewhere.

A turn is what is said between two events: a phase ended, or is looked at. Its rounds are those of one call
(`store.agent_calls`), whose key is the step that the event tells of; so the order of the turns follows from the names
of their folders, and a turn that a kill cut short is continued, or answered by the next event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.agents.llm.client import Message
from llmzero_hpc.baselines.skills.tools import PAUSING, calls_of
from llmzero_hpc.store.agent_calls import CallReply, CallRequest, ToolResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.store.agent_calls import Call, CallLog

AGENT = "skill_agent"
_SET_ASIDE = "Not carried out: something else came first."
_NOTHING = "(nothing)"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was said to the model, and what it replied; None where a kill or an outage came first."""

    said: CallRequest
    reply: CallReply | None


class Conversation:
    """Reads and continues what is on disk. Used by one thread at a time."""

    def __init__(self, log: CallLog) -> None:
        self._log = log

    def turn(self, node: int, step: int) -> Call:
        """The turn that an event begins; `step` is 0 for the one in which a phase is proposed."""
        return self._log.call(node, AGENT, f"{step:08d}")

    def before(self, turn: Call) -> tuple[Exchange, ...]:
        """All that was said before a turn, oldest first.

        Raises:
            StorageError: a folder cannot be read.
        """
        found: list[Exchange] = []
        for node in range(turn.node + 1):
            calls = sorted(
                (call for call in self._log.calls(node) if call.agent == AGENT), key=lambda call: call.folder.name
            )
            for call in calls:
                if node < turn.node or call.folder.name < turn.folder.name:
                    found += exchanges(call)
        return tuple(found)


def exchanges(call: Call) -> tuple[Exchange, ...]:
    """The rounds of a turn."""
    return tuple(
        Exchange(said, call.reply(number)) for number in call.rounds if (said := call.request(number)) is not None
    )


def opening(before: Sequence[Exchange], event: str) -> tuple[tuple[ToolResult, ...], str]:
    """An event as what is said next: the result of the call that waits for it, or else a message.

    Every call that a model made must get a result before it may go on.
    """
    last = before[-1].reply if before else None
    waiting = calls_of(last) if last is not None else ()
    main = next((call for call in waiting if call.name in PAUSING), None)
    results = tuple(ToolResult(call.id, event if call is main else _SET_ASIDE) for call in waiting)
    return results, "" if main is not None else event


def messages(system: str, said: Sequence[Exchange], *, tools: bool) -> tuple[Message, ...]:
    """The conversation as it is sent, to an endpoint that knows tools or does not."""
    found = [Message("system", system)]
    asked: CallReply | None = None
    for exchange in said:
        native = tools and asked is not None and bool(asked.wanted)
        names = {} if asked is None else {call.id: call.name for call in calls_of(asked)}
        for result in exchange.said.results:
            if native:
                found.append(Message("tool", result.text, result_of=result.call))
            else:
                name = names.get(result.call, "the call")
                found.append(Message("user", f"Result of {name}:\n\n{result.text}"))
        if exchange.said.user:
            found.append(Message("user", exchange.said.user))
        asked = exchange.reply
        if asked is not None:
            wanted = asked.wanted if tools else ()
            written = asked.content or "\n".join(f"{call.name} {call.arguments}" for call in asked.wanted)
            found.append(Message("assistant", asked.content if wanted else written or _NOTHING, wanted=wanted))
    return tuple(found)
