"""The eight skills as tools: what a model may call, with which arguments. None runs anything or opens a path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema  # noqa: TC002 - pydantic reads it

from llmzero_hpc.agents.llm.failures import UnusableReplyError
from llmzero_hpc.agents.llm.replies import (
    Citation,
    Name,
    Paragraph,
    Part,
    ProposerReply,
    Sentence,
    Step,
    checked,
    only_object,
    schema,
)
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.store.agent_calls import CallReply, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITTEN = "written"
"""Id of a call that a model wrote down as text."""


class NoArguments(Part):
    """Of tools that only tell something."""


class Training(ProposerReply):
    """A phase: what it continues, and with which hyperparameters."""

    observations: SkipJsonSchema[tuple[Citation, ...]] = ()
    """Not asked for: all that was shown stands in the conversation."""
    resume_phase: Step | None


class Verdict(Part):
    """On one hyperparameter."""

    name: Name
    verdict: Literal["KEEP", "INCREASE", "DECREASE"]
    why: Sentence


class Check(Part):
    """How healthy a phase is, and what to do about it."""

    phase: Step
    verdicts: Annotated[tuple[Verdict, ...], Field(strict=False, max_length=len(HYPERPARAMETERS))]
    why: Paragraph
    action: Literal["look", "continue", "stop"]


class Results(Part):
    """The end of the work."""

    report: Paragraph


SKILLS: Mapping[str, tuple[type[Part], str]] = {
    "prepare-dataset": (NoArguments, "What the training and validation rows are."),
    "define-reward": (NoArguments, "How responses are scored."),
    "validate-run": (Training, "Check a phase without training it."),
    "generate-config": (Training, "Show the whole configuration of a phase."),
    "download-model": (NoArguments, "Which base model there is."),
    "submit-training": (Training, "Submit the next phase; the answer comes when it has something to show."),
    "check-training": (Check, "Judge a phase: look at it again, let it continue, or stop it."),
    "gather-results": (Results, "End the work with a report."),
}
PAUSING = frozenset({"submit-training", "check-training"})
"""Skills whose answer may come long after the call."""

_Arguments = TypeVar("_Arguments", bound=Part)


def offered() -> tuple[dict[str, Any], ...]:
    """The tools in the form of chat completions."""
    return tuple(
        {"type": "function", "function": {"name": name, "description": said, "parameters": schema(kind)}}
        for name, (kind, said) in SKILLS.items()
    )


def written_form() -> str:
    """The tools as text, for endpoints that know none."""
    return json.dumps([tool["function"] for tool in offered()], indent=1)


def calls_of(reply: CallReply) -> tuple[ToolCall, ...]:
    """The tools that a reply wants called: as the API has it, or one that is written down as a JSON object."""
    if reply.wanted:
        return reply.wanted
    try:
        found = only_object(reply.content)
    except UnusableReplyError:
        return ()
    name, arguments = found.get("tool"), found.get("arguments", {})
    return (ToolCall(WRITTEN, name, json.dumps(arguments)),) if isinstance(name, str) else ()


def arguments_of(call: ToolCall, kind: type[_Arguments]) -> _Arguments:
    """The checked arguments of a call.

    Raises:
        UnusableReplyError: they are no JSON, or have another form.
    """
    return checked(kind, only_object(call.arguments or "{}"))
