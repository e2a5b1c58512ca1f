"""What is made of replies: proposals, stops and repairs, checked so that no reply can do harm.

A reply changes values of the table and keys that the trainer allows, within bounds, or nothing at all.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import Proposal, Repair, StopAnswer
from llmzero_hpc.agents.checks import proposal_problems, repair_problems
from llmzero_hpc.agents.llm.failures import UnusableReplyError
from llmzero_hpc.report.citations import Observation, Outcome, Statistic, check
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, Scalar
from llmzero_hpc.search.metrics import VALIDATION_SCORE
from llmzero_hpc.search.node import Rationale, TransitionKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmzero_hpc.agents.base import FailureRequest, ProposalRequest, StopRequest
    from llmzero_hpc.agents.llm.replies import Change, EarlyStopperReply, ErrorAnalyzerReply, Override, ProposerReply
    from llmzero_hpc.search.node import Node

LONGEST_PHASE = 4.0
"""Steps of a phase over those of the phase that it follows, at most: one reply must not spend the whole budget."""
LEAST_VALIDATIONS = 2
"""Validations of a phase that a STOP must cite: one has no rate of improvement."""


def proposal(
    reply: ProposerReply, request: ProposalRequest, author: str, refused: Callable[[Configuration], list[str]]
) -> Proposal:
    """The next phase as the model wants it.

    Args:
        reply: in the right form.
        request: what it answers.
        author: the model's name.
        refused: why the trainer would refuse a configuration.

    Raises:
        UnusableReplyError: something in it is not allowed; all that is, is said.
    """
    base = request.parent.configuration or Configuration()
    problems: list[str] = []
    if any(change.name == "epochs" for change in reply.changes):
        problems.append("epochs: they have a key of their own, and are no change")
    values = _values(reply.changes, base, problems)
    values["epochs"] = reply.epochs
    configuration = replace(base.changed(**values), overrides=_merged(base, reply.overrides))
    rationale = Rationale(author, reply.diagnosis, _evidence(reply, base, configuration))
    answer = Proposal(configuration, reply.resume_step, rationale)
    problems += proposal_problems(request, answer, refused)
    if not problems:
        problems += _too_long(configuration, request.parent, request.train_rows)
        problems += _tried_before(answer, request)
    if problems:
        raise UnusableReplyError(problems)
    return answer


def stop(reply: EarlyStopperReply, request: StopRequest, author: str) -> StopAnswer:
    """CONTINUE, or a STOP whose reason rests on validation scores that are in the data.

    Raises:
        UnusableReplyError: it says STOP without them.
    """
    if reply.decision == "CONTINUE":
        return StopAnswer(stop=False, reason=reply.reason, author=author)
    problems = []
    confirmed = {}
    for point in reply.validation_scores:
        cited = Observation(VALIDATION_SCORE, point.step, point.step, Statistic.LAST, float(point.score))
        verdict = check(cited, request.series)
        if verdict.outcome is Outcome.CONFIRMED:
            confirmed[point.step] = point.score
        elif verdict.outcome is Outcome.NO_DATA:
            problems.append(f"validation_scores: this run was not validated at step {point.step}")
        else:
            problems.append(
                f"validation_scores: at step {point.step} the score is {verdict.actual:.4g}, not {point.score:.4g}"
            )
    if len(confirmed) < LEAST_VALIDATIONS:
        problems.append(
            f"STOP must rest on at least {LEAST_VALIDATIONS} validation scores of this very run, each with its step"
        )
    if not reply.reason:
        problems.append("STOP needs a reason")
    if problems:
        raise UnusableReplyError(problems)
    shown = ", ".join(f"{score:.4g} at step {step}" for step, score in sorted(confirmed.items()))
    return StopAnswer(stop=True, reason=f"{reply.reason} (validation {shown})", author=author)


def repair(
    reply: ErrorAnalyzerReply, request: FailureRequest, author: str, refused: Callable[[Configuration], list[str]]
) -> Repair:
    """How the model would repair a failure; one of the infrastructure leaves the configuration as it is.

    Raises:
        UnusableReplyError: something in it is not allowed, or has been tried; all that is, is said.
    """
    failed = request.node.configuration or Configuration()
    problems: list[str] = []
    configuration = failed
    if reply.verdict == "configuration":
        values = _values(reply.changes, failed, problems)
        configuration = replace(failed.changed(**values), overrides=_merged(failed, reply.overrides))
    evidence = (f"verdict: {reply.verdict}", *_changes(reply.changes, failed, configuration))
    answer = Repair(configuration, Rationale(author, reply.why, evidence), reply.resume_step)
    problems += repair_problems(request, answer, refused)
    if not problems and reply.verdict == "configuration":
        known = [node for node in (request.node, *request.earlier) if node.configuration == configuration]
        problems += [f"this is the configuration of node {node.id}, which failed" for node in known]
        problems += _too_long(configuration, request.node, request.train_rows)
    if problems:
        raise UnusableReplyError(problems)
    return answer


def _values(changes: Sequence[Change], base: Configuration, problems: list[str]) -> dict[str, Scalar]:
    """New values by name, as the table's types; what is wrong is added to `problems`."""
    values: dict[str, Scalar] = {}
    for change in changes:
        kind, value = HYPERPARAMETERS[change.name].kind, change.value
        if change.name in values:
            problems.append(f"{change.name}: it is changed twice")
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        elif kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            problems.append(f"{change.name}: {value!r} is not of type {kind.__name__}")
            value = base.value(change.name)
        values[change.name] = value
    return values


def _merged(base: Configuration, overrides: Sequence[Override]) -> dict[str, Scalar]:
    changed = {**base.overrides, **{override.key: override.value for override in overrides}}
    return {key: value for key, value in changed.items() if value is not None}


def _too_long(configuration: Configuration, before: Node, train_rows: int | None) -> list[str]:
    if train_rows is None:
        return []
    earlier = before.total_steps or (before.configuration or Configuration()).steps(train_rows)
    most = math.floor(LONGEST_PHASE * earlier)
    steps = configuration.steps(train_rows)
    if steps <= most:
        return []
    epochs = most / max(1, train_rows // configuration.batch_size)
    problem = (
        f"epochs: {configuration.epochs:g} make {steps} steps, more than {LONGEST_PHASE:g} times the {earlier} of node "
        f"{before.id}; with this batch size at most {epochs:.3g}"
    )
    return [problem]


def _tried_before(answer: Proposal, request: ProposalRequest) -> list[str]:
    if request.kind is TransitionKind.SCRATCH:
        nodes = [sibling.node for sibling in request.siblings if sibling.node.kind is TransitionKind.SCRATCH]
    else:
        nodes = [
            sibling.node
            for sibling in request.siblings
            if sibling.node.resume is not None
            and (sibling.node.resume.node, sibling.node.resume.step) == (request.parent.id, answer.resume_step)
        ]
    same = [node.id for node in nodes if node.configuration == answer.configuration]
    return [f"node {node_id} was the very same phase; propose another" for node_id in same]


def _evidence(reply: ProposerReply, base: Configuration, configuration: Configuration) -> tuple[str, ...]:
    observations = tuple(str(citation.observation()) for citation in reply.observations)
    resumed = () if reply.resume_step is None else (f"resumes from step {reply.resume_step}",)
    return (*observations, *_changes(reply.changes, base, configuration), *resumed)


def _changes(changes: Sequence[Change], before: Configuration, after: Configuration) -> tuple[str, ...]:
    reasons = {change.name: change.why for change in changes}
    return tuple(
        f"{name}: {_shown(old)} to {_shown(new)}" + (f" ({reasons[name]})" if reasons.get(name) else "")
        for name, (old, new) in before.differences(after).items()
    )


def _shown(value: Scalar | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
