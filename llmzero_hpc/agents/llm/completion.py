"""A chat completion as it came over the wire, read without trust: any server may stand behind an address."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llmzero_hpc.agents.llm.failures import EndpointError
from llmzero_hpc.store.agent_calls import CUT_OFF, ToolCall, Usage

_LONGEST_NAME = 200
_MOST_TOKENS = 10**9
_MOST_CALLS = 16
_LONGEST_ARGUMENTS = 100_000


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply. `usage` is None where the endpoint does not count tokens; `seconds` is how long it took."""

    content: str
    finish_reason: str
    model: str
    usage: Usage | None
    seconds: float
    refusal: str = ""
    tool_calls: int = 0
    wanted: tuple[ToolCall, ...] = ()
    """The first of the calls of tools, whatever they are; each has an id of its own."""

    @property
    def is_cut_off(self) -> bool:
        """The server was shut down in the middle of it."""
        return self.finish_reason == CUT_OFF

    @property
    def problem(self) -> str:
        """Why its content may not be read; empty when it may. To be asked before anything is parsed."""
        if self.finish_reason == "length":
            return "the reply was cut off at the limit of tokens: think and write less"
        if self.finish_reason == "content_filter":
            return "a content filter cut the reply off"
        if self.tool_calls or self.finish_reason in {"tool_calls", "function_call"}:
            return "there are no tools: reply with the JSON object itself"
        if self.refusal:
            return f"the model declined: {self.refusal[:_LONGEST_NAME]}"
        if self.finish_reason != "stop":
            return f"the reply did not come to its end (finish_reason {self.finish_reason[:_LONGEST_NAME]!r})"
        return ""


def read_completion(data: str, seconds: float) -> Completion:
    """The completion in the body of a response.

    Raises:
        EndpointError: it is none.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise EndpointError(
            "the endpoint answers with something else than JSON", "check agents.base_url: it mostly ends in /v1"
        ) from None
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        raise EndpointError(f"the endpoint reports an error: {_text(body['error'].get('message'))[:300]}", passing=True)
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EndpointError(
            "the endpoint answers with JSON that is no chat completion", "check agents.base_url: it mostly ends in /v1"
        )
    message = choices[0].get("message")
    message = message if isinstance(message, dict) else {}
    calls = message.get("tool_calls")
    return Completion(
        content=_content(message.get("content")),
        finish_reason=_text(choices[0].get("finish_reason"))[:_LONGEST_NAME],
        model=_text(body.get("model"))[:_LONGEST_NAME],
        usage=_usage(body.get("usage")),
        seconds=seconds,
        refusal=_text(message.get("refusal")),
        tool_calls=len(calls) if isinstance(calls, list) else int("function_call" in message),
        wanted=_wanted(calls),
    )


def _wanted(calls: Any) -> tuple[ToolCall, ...]:
    found: dict[str, ToolCall] = {}
    for number, call in enumerate(calls[:_MOST_CALLS] if isinstance(calls, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        function = function if isinstance(function, dict) else {}
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        own = _text(call.get("id") if isinstance(call, dict) else None)[:_LONGEST_NAME]
        key = own if own and own not in found else f"call_{number}"
        found[key] = ToolCall(key, _text(function.get("name"))[:_LONGEST_NAME], _text(text)[:_LONGEST_ARGUMENTS])
    return tuple(found.values())


def _content(value: Any) -> str:
    """Text, or the texts of parts, as some servers send them."""
    parts = value if isinstance(value, list) else [value]
    return "".join(_text(part.get("text") if isinstance(part, dict) else part) for part in parts)


def _text(value: Any) -> str:
    """Text that can be written as UTF-8; empty for anything else."""
    return value.encode("utf-8", errors="replace").decode() if isinstance(value, str) else ""


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counted, replied = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    if counted is None or replied is None:
        return None
    details = value.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    return Usage(
        input_tokens=counted,
        output_tokens=replied,
        cached_tokens=min(counted, _count(details.get("cached_tokens")) or 0),
        image_tokens=min(counted, _count(details.get("image_tokens")) or 0),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None
