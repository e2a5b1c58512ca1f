"""A model that plans with the eight skills, as a script for the endpoint: what it is told decides what it calls."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from scripted_endpoint import Said

if TYPE_CHECKING:
    from scripted_endpoint import Asked

Wanted = tuple[str, dict[str, Any]]


def text_of(message: dict[str, Any]) -> str:
    """What a message says; empty for one that only calls tools."""
    return message["content"] or ""


def event_of(asked: Asked) -> str:
    """The newest event: what was said last of a phase."""
    events = [
        text_of(one) for one in asked.body["messages"] if re.search(r"Phase \d+ (is running|has ended)", text_of(one))
    ]
    return events[-1]


def best_checkpoint(event: str) -> tuple[int, int] | None:
    """Phase and step of the best validation score in a list of all phases."""
    found = re.findall(r"^- node (\d+): .*best validation ([\d.]+) @(\d+)$", event, re.MULTILINE)
    best = max(found, key=lambda one: float(one[1]), default=None)
    return None if best is None else (int(best[0]), int(best[2]))


def training(phase: int | None, step: int | None, rate: float, **changes: Any) -> dict[str, Any]:
    """Arguments of submit-training."""
    values = {
        "diagnosis": "Validation still improves.",
        "changes": [{"name": "learning_rate", "value": rate, "why": "one of its own for each phase"}],
        "overrides": [],
        "resume_phase": phase,
        "resume_step": step,
        "epochs": 2.0,
    }
    return values | changes


def check(phase: int, action: str) -> dict[str, Any]:
    """Arguments of check-training."""
    verdicts = [{"name": "kl_coefficient", "verdict": "KEEP", "why": "KL is steady"}]
    return {"phase": phase, "verdicts": verdicts, "why": "as the curves show", "action": action}


def planned(asked: Asked, phases: int) -> Wanted:
    """Resume the best checkpoint so far with another learning rate; stop every third phase; end after so many."""
    event = event_of(asked)
    running = re.match(r"(?:Result of .*\n\n)?Phase (\d+) is running: step (\d+)", event)
    if running:
        phase = int(running[1])
        return "check-training", check(phase, "stop" if phase % 3 == 2 else "continue")
    ended = re.search(r"Phase (\d+) has ended", event)
    assert ended is not None
    number = int(ended[1]) + 1
    if number >= phases:
        return "gather-results", {"report": f"{number} phases were trained; the chain of the best was continued."}
    best = best_checkpoint(event)
    rate = round(1e-3 * (1 + number / 10), 6)
    return "submit-training", training(*best, rate) if best else training(None, None, rate)


def called(*wanted: Wanted, number: int = 0, **changes: Any) -> Said:
    """A reply that calls tools."""
    calls = [
        {
            "id": f"call-{number}-{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for place, (name, arguments) in enumerate(wanted)
    ]
    return Said(**{"content": None, "finish_reason": "tool_calls", "message": {"tool_calls": calls}} | changes)


def written(wanted: Wanted) -> Said:
    """The same as text, for endpoints without tools."""
    name, arguments = wanted
    return Said(content=f"I shall do this:\n{json.dumps({'tool': name, 'arguments': arguments})}")


def sizes(asked: Asked) -> int:
    """Tokens that an endpoint would count in a request, roughly: a quarter of its characters."""
    return len(json.dumps(asked.body["messages"])) // 4


def well_formed(asked: Asked) -> None:
    """Every call of a tool has one result, right after it, as servers insist."""
    waiting: list[str] = []
    for message in asked.body["messages"]:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting, asked.body
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, asked.body
        waiting = [call["id"] for call in message.get("tool_calls", ())]
    assert not waiting
