"""What language models were asked about a phase, and what they said, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmzero_hpc.report import words
from llmzero_hpc.report.calls import NOBODY
from llmzero_hpc.report.terminal_parts import author_of, field, hanging, portable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from llmzero_hpc.report.calls import AgentCall, Round
    from llmzero_hpc.report.data import NodeReport, ReportData
    from llmzero_hpc.store.agent_calls import CallReply

_BEGINNING = 300
"""Characters of a prompt that are shown."""
_LONGEST_TEXT = 4000
"""Characters of a reply that is no JSON, and of one value of a reply, that are shown."""
_MOST_LINES = 60


def calls_view(data: ReportData, node: NodeReport, calls: tuple[AgentCall, ...]) -> RenderableType:
    """Every call about a phase, oldest first; texts of models are shown as text, without control characters."""
    from rich.console import Group
    from rich.text import Text

    head = Text(f"Phase {node.id}", style="bold")
    head.append(f"  {node.kind.value}", style="")
    lines: list[RenderableType] = [head]
    if node.author:
        lines.append(field("author", author_of(node.author, node.rule)))
    if not calls:
        lines.append(Text(f"  No language model was asked about it.{_reason(data, node)}"))
    priced = data.model is not None and data.model.dollars is not None
    for number, call in enumerate(calls, start=1):
        lines += ["", *_call(number, call, priced=priced)]
    return portable(Group(*lines))


def _reason(data: ReportData, node: NodeReport) -> str:
    """The playbook says why it stands in for a model."""
    return f" {node.diagnosis}" if data.model is not None and node.author == "playbook" else ""


def _call(number: int, call: AgentCall, *, priced: bool) -> list[RenderableType]:
    from rich.text import Text

    head = Text(f"{number}  {words.agent(call.agent)}", style="bold")
    head.append(f"  {words.clock(call.asked_at)}", style="dim")
    lines: list[RenderableType] = [head, field("model", words.plain(f"{call.model} at {call.endpoint}"))]
    for one in call.rounds:
        lines += _round(one, call.model, priced=priced)
    for failure in call.failures:
        said = words.clipped(words.plain(failure.message), _BEGINNING)
        lines.append(field("no reply", f"{words.clock(failure.at)}, after {words.duration(failure.seconds)}: {said}"))
    lines.append(field("outcome", _outcome(call)))
    if call.answered_by:
        lines.append(field("instead", _instead(call)))
    return lines


def _round(one: Round, asked: str, *, priced: bool) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if one.number == 1:
        size = f"system {len(one.system):,} and user {len(one.user):,} characters"
        begins = words.clipped(words.plain(one.user), _BEGINNING)
        lines.append(field("prompt", f"{size}: {begins}"))
    elif not one.results:
        lines.append(field("again", words.plain("; ".join(one.repairs) or "the reply could not be used")))
    lines += [field("result", words.clipped(words.plain(result), _BEGINNING)) for result in one.results]
    lines += [_path(path) for path in (one.request, *one.images)]
    for reply in one.replies:
        lines.append(field("reply", _facts(reply, asked, priced=priced)))
        if reply.refusal:
            lines.append(field("refusal", words.clipped(words.plain(reply.refusal), _LONGEST_TEXT)))
    if not one.replies:
        lines.append(field("reply", "none"))
    elif one.content is not None:
        lines += _content(one.content)
    return lines


def _facts(reply: CallReply, asked: str, *, priced: bool) -> str:
    usage = reply.usage
    parts = [
        f"{usage.cached_tokens:,} cached" if usage.cached_tokens else "",
        f"{usage.image_tokens:,} of images" if usage.image_tokens else "",
    ]
    detail = f" ({', '.join(filter(None, parts))})" if any(parts) else ""
    guess = ", estimated" if usage.estimated else ""
    money = f", {words.dollars(reply.dollars)}" if priced else ""
    by = f" by {words.clipped(words.plain(reply.model), 60)}" if reply.model != asked else ""
    return (
        f"{words.plain(reply.finish_reason) or 'no reason to finish'}{by} after {words.duration(reply.seconds)}; "
        f"{usage.input_tokens:,} tokens in{detail}, {usage.output_tokens:,} out{guess}{money}"
    )


def _outcome(call: AgentCall) -> str:
    if call.used:
        return "used"
    if call.problems:
        return words.plain("not used: " + "; ".join(call.problems))
    return "no reply that could be used"


def _instead(call: AgentCall) -> str:
    if call.answered_by == NOBODY:
        return "nobody: the phase goes on"
    return author_of(call.answered_by, "")


def _path(path: Path) -> RenderableType:
    """Whole, however wide the terminal is, as people copy it."""
    from rich.text import Text

    return Text(f"  {'':<11}{path}", style="dim", no_wrap=True, overflow="ignore")


def _content(content: Any) -> list[RenderableType]:
    from rich.text import Text

    if isinstance(content, dict):
        found = [line for key, value in content.items() for line in _entry(str(key), value)]
    else:
        found = [("", line) for line in str(content)[:_LONGEST_TEXT].splitlines()]
    shown = [
        hanging(Text("    " + (f"{words.plain(key)}: " if key else "")), Text(words.plain(said)))
        for key, said in found[:_MOST_LINES]
    ]
    if len(found) > _MOST_LINES:
        shown.append(Text(f"    and {len(found) - _MOST_LINES} more lines", style="dim"))
    return shown


def _entry(key: str, value: Any) -> list[tuple[str, str]]:
    """A key of a reply with its value; of a list of records each has a line of its own."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [(key, ""), *(("", f"- {_value(item)}") for item in value)]
    return [(key, _value(value))]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)[:_LONGEST_TEXT]
