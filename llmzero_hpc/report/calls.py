"""Each call of an agent about one phase, as people and scripts read it, from the log of calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzero_hpc.report.data import JSON_FORMAT
from llmzero_hpc.store.agent_calls import CallFailure, CallLog, CallReply, Spending

if TYPE_CHECKING:
    from llmzero_hpc.report.data import NodeReport
    from llmzero_hpc.store.agent_calls import Call, CallRequest
    from llmzero_hpc.store.search_directory import SearchDirectory

NOBODY = "nobody"
"""Who judges where the early stopper does not: the phase goes on."""
_LATER_CALL = "another call"
"""Who answered where the same model was asked again under another question."""


@dataclass(frozen=True, slots=True)
class Round:
    """A question and what came back; from the second round on, why the reply before could not be used."""

    number: int
    request: Path
    system: str
    user: str
    images: tuple[Path, ...]
    repairs: tuple[str, ...]
    replies: tuple[CallReply, ...]
    """One; none where none came, and several where one was cut off or two were asked at once."""
    content: Any
    """The reply as JSON where it is some, else as text; None without one. Of one that calls tools, what it calls."""
    results: tuple[str, ...] = ()
    """Of the tools that the reply before called."""


@dataclass(frozen=True, slots=True)
class AgentCall:
    """One call. `asked_at` is in seconds since the epoch; paths are absolute."""

    agent: str
    model: str
    endpoint: str
    asked_at: float
    rounds: tuple[Round, ...]
    failures: tuple[CallFailure, ...]
    used: bool | None
    """Whether the last reply could be used; None while there is none."""
    problems: tuple[str, ...]
    """Why it could not be."""
    answered_by: str
    """Who answered instead of the model; empty where the model's answer stands, or nobody knows yet."""
    spending: Spending


def calls_about(directory: SearchDirectory, node: NodeReport) -> tuple[AgentCall, ...]:
    """The calls about a phase, oldest first.

    Raises:
        StorageError: the log cannot be read.
    """
    found = (_call(call, node) for call in CallLog(directory).calls(node.id))
    return tuple(call for call in found if call is not None)


def calls_to_json(node: NodeReport, calls: tuple[AgentCall, ...]) -> dict[str, Any]:
    """Plain values for scripts: the fields of `AgentCall`, whole texts included."""
    return {
        "format": JSON_FORMAT,
        "node": node.id,
        "author": node.author,
        "calls": [_plain(asdict(call)) for call in calls],
        "spending": asdict(sum((call.spending for call in calls), start=Spending())),
    }


def _call(call: Call, node: NodeReport) -> AgentCall | None:
    requests = {number: request for number in call.rounds if (request := call.request(number)) is not None}
    if not requests:
        return None
    first, outcome = requests[min(requests)], call.outcome
    return AgentCall(
        agent=call.agent,
        model=first.model,
        endpoint=first.endpoint,
        asked_at=first.asked_at,
        rounds=tuple(_round(call, number, request) for number, request in requests.items()),
        failures=tuple(call.failures),
        used=None if outcome is None else not outcome.problems,
        problems=() if outcome is None else tuple(outcome.problems),
        answered_by=_stand_in(call, node, first.model, used=outcome is not None and not outcome.problems),
        spending=call.spending(),
    )


def _stand_in(call: Call, node: NodeReport, model: str, *, used: bool) -> str:
    if call.agent == "early_stopper":
        return "" if used or not (call.failures or call.outcome) else NOBODY
    if not node.author or (used and node.author == model):
        return ""
    return _LATER_CALL if node.author == model else node.author


def _round(call: Call, number: int, request: CallRequest) -> Round:
    reply, outcome = call.reply(number), call.outcome
    content: Any = None if reply is None else _said(reply)
    if outcome is not None and outcome.parsed is not None and number == max(call.rounds):
        content = outcome.parsed
    return Round(
        number=number,
        request=call.folder / f"request_{number}.json",
        system=request.system,
        user=request.user,
        images=tuple(call.folder / name for name in request.images),
        repairs=tuple(line[2:] for line in request.user.splitlines() if number > 1 and line.startswith("- ")),
        replies=tuple(call.replies_of(number)),
        content=content,
        results=tuple(result.text for result in request.results),
    )


def _said(reply: CallReply) -> Any:
    calls = [{"tool": call.name, "arguments": _readable(call.arguments)} for call in reply.wanted]
    if not calls:
        return _readable(reply.content)
    return ({"text": reply.content} if reply.content else {}) | {"calls": calls}


def _readable(content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
