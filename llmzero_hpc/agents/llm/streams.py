"""Replies that come in pieces: some gateways stream, whatever they were asked for."""

from __future__ import annotations

import json
from typing import Any

_FIELDS = ("data:", "event:", "id:", "retry:", ":")
"""How a line of a stream of events begins."""
_END = "[DONE]"


def joined(data: str) -> str:
    """The body of a response: of a stream of events the completion that they make up, anything else as it came."""
    lines = data.lstrip().splitlines()
    if not lines or not lines[0].startswith(_FIELDS):
        return data
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {"content": "", "refusal": ""}
    calls: dict[Any, dict[str, Any]] = {}
    finish_reason = None
    for line in lines:
        text = line.removeprefix("data:").strip()
        if not line.startswith("data:") or text == _END:
            continue
        try:
            event = _object(json.loads(text))
        except (ValueError, RecursionError):
            return data
        if "error" in event:
            return text
        whole |= {key: event[key] for key in ("model", "usage") if event.get(key)}
        choices = event.get("choices")
        choice = _object(choices[0] if isinstance(choices, list) and choices else None)
        delta = _object(choice.get("delta"))
        for key in message:
            message[key] += _text(delta.get(key))
        pieces = delta.get("tool_calls")
        for piece in pieces if isinstance(pieces, list) else ():
            _add(calls, _object(piece))
        finish_reason = choice.get("finish_reason") or finish_reason
    message["tool_calls"] = list(calls.values())
    return json.dumps({**whole, "choices": [{"message": message, "finish_reason": finish_reason}]})


def _add(calls: dict[Any, dict[str, Any]], piece: dict[str, Any]) -> None:
    """A piece of a call of a tool; pieces of one call have its index in common."""
    call = calls.setdefault(str(piece.get("index")), {"id": "", "function": {"name": "", "arguments": ""}})
    call["id"] = call["id"] or _text(piece.get("id"))
    said = _object(piece.get("function"))
    for key in call["function"]:
        call["function"][key] += _text(said.get(key))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
