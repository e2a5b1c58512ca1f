"""What a call of a skill does, purely: it tells something, is refused with the reason, or decides what happens next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from llmzero_hpc.agents.base import Proposal, Sibling, StopAnswer, WorkDoneError
from llmzero_hpc.agents.llm import decisions, facts, summaries
from llmzero_hpc.agents.llm.failures import UnusableReplyError
from llmzero_hpc.baselines.skills.tools import SKILLS, Check, Results, Training, arguments_of
from llmzero_hpc.search.node import Rationale, TransitionKind
from llmzero_hpc.sections import FilesTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.agents.base import ProposalRequest, StopRequest
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.store.agent_calls import ToolCall


_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Decided(Generic[_Value]):
    """What a call decides; what one brings that decides nothing is text for the model."""

    value: _Value


def between_phases(
    call: ToolCall,
    request: ProposalRequest,
    config: SearchConfig,
    author: str,
    refused: Callable[[Configuration], list[str]],
) -> str | Decided[Proposal | WorkDoneError]:
    """A call while no phase is running."""
    try:
        match call.name:
            case "submit-training":
                return Decided(_proposal(arguments_of(call, Training), request, author, refused))
            case "validate-run":
                _proposal(arguments_of(call, Training), request, author, refused)
                return "It can be trained. Nothing was submitted."
            case "generate-config":
                found = _proposal(arguments_of(call, Training), request, author, refused)
                steps = found.configuration.steps(request.train_rows)
                text = facts.fenced(facts.configuration_text(found.configuration))
                return f"{steps} steps with this configuration; nothing was submitted.\n\n{text}"
            case "check-training":
                return _looked_at(arguments_of(call, Check), request)
            case "gather-results":
                report = arguments_of(call, Results).report
                return Decided(WorkDoneError(Rationale(author, report or "It ended its work without a word.")))
            case _:
                return _told(call, config, request.train_rows)
    except UnusableReplyError as error:
        return _refusal(error)


def during_phase(call: ToolCall, request: StopRequest, event: str, author: str) -> str | Decided[StopAnswer]:
    """A call while a phase is running; `event` is what was shown of it."""
    node = request.node.id
    if call.name != "check-training":
        known = call.name in SKILLS
        return (
            f"Phase {node} is running: call check-training with `continue` or `stop` first."
            if known
            else _unknown(call)
        )
    try:
        check = arguments_of(call, Check)
    except UnusableReplyError as error:
        return _refusal(error)
    if check.phase != node:
        return f"Phase {check.phase} is not running, phase {node} is. What others reached stands above."
    if check.action == "look":
        return event
    return Decided(StopAnswer(stop=check.action == "stop", reason=check.why or "no reason was given", author=author))


def _proposal(
    wanted: Training, request: ProposalRequest, author: str, refused: Callable[[Configuration], list[str]]
) -> Proposal:
    """As any proposal is checked, against the phase that it continues."""
    siblings = tuple(Sibling(node, None) for node, _ in request.history)
    nodes = {node.id: node for node, _ in request.history}
    if wanted.resume_phase is None:
        if wanted.resume_step is not None:
            raise UnusableReplyError(["resume_step: without resume_phase it must be null"])
        first = request.history[0][0]
        scratch = replace(
            request, kind=TransitionKind.SCRATCH, parent=first, checkpoints=(), siblings=siblings, history=()
        )
        return decisions.proposal(wanted, scratch, author, refused)
    source = nodes.get(wanted.resume_phase)
    if source is None:
        raise UnusableReplyError([f"resume_phase: there is no phase {wanted.resume_phase} that has ended"])
    evolve = replace(
        request,
        kind=TransitionKind.EVOLVE,
        parent=source,
        checkpoints=source.checkpoints,
        siblings=siblings,
        history=(),
    )
    return replace(decisions.proposal(wanted, evolve, author, refused), resume_node=source.id)


def _looked_at(check: Check, request: ProposalRequest) -> str:
    found = next(((node, series) for node, series in request.history if node.id == check.phase), None)
    if found is None:
        return f"There is no phase {check.phase} that has ended."
    if check.action != "look":
        return "No phase is running: submit the next one, or gather the results."
    return f"Phase {check.phase}:\n\n{summaries.table(found[1])}"


def _told(call: ToolCall, config: SearchConfig, train_rows: int) -> str:
    match call.name:
        case "prepare-dataset":
            return (
                f"Task {config.task.name}: {train_rows} training rows, and validation rows of their own, are prepared."
            )
        case "define-reward":
            how = "by the user's function" if isinstance(config.task, FilesTask) else "by the task itself"
            return f"Each response is scored {how}; `val_score` is the mean over the validation rows."
        case "download-model":
            return f"The base model {facts.quoted(config.model.rpartition('/')[2])} is in place."
        case _:
            return _unknown(call)


def _unknown(call: ToolCall) -> str:
    return f"There is no tool {facts.quoted(call.name)}. There are: {', '.join(SKILLS)}."


def _refusal(error: UnusableReplyError) -> str:
    return "Not done:\n" + "\n".join(f"- {problem}" for problem in error.problems)
