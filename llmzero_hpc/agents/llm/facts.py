"""What templates may write: a request as short texts, tables and numbers, by the names that `prompts/README.md` lists.

Whatever comes from elsewhere (logs, other models, names of data sets) is quoted or fenced here, so that no template has
to think of it.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from llmzero_hpc.agents.llm import summaries
from llmzero_hpc.report.citations import Statistic
from llmzero_hpc.report.words import clipped, plain
from llmzero_hpc.search.configuration import Bounds
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass
from llmzero_hpc.search.metrics import STEP_METRICS, VALIDATION_SCORE
from llmzero_hpc.search.node import Node, NodeStatus, TransitionKind
from llmzero_hpc.search.strategy import StrategyPhase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmzero_hpc.agents.base import FailureRequest, ProposalRequest, Sibling, StopRequest
    from llmzero_hpc.agents.llm.plots import Picture
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.hyperparameters import Hyperparameter, Scalar
    from llmzero_hpc.search.metrics import Series
    from llmzero_hpc.search.node import Attempt

_MOST_VALIDATIONS = 24
_MOST_COMPARED = 14
_MOST_CHECKPOINTS = 40
_MOST_TRIED = 16
_MANY_PHASES = 1000
_QUOTE = 160
_LOG_CHARACTERS = 9000
"""The end of a log that is shown: a traceback with what led to it."""
WATCHED = (VALIDATION_SCORE, "reward_mean", "kl", "entropy", "response_length_mean")
"""What an early stopper is shown of a run: it is asked often, and only validation decides."""
_KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def of_proposal(request: ProposalRequest, pictures: Sequence[Picture]) -> dict[str, Any]:
    """For the proposer. Without checkpoints, and without a word on resuming, for a scratch phase (section 3.3)."""
    parent, configuration = request.parent, _known(request.parent)
    scratch = request.kind is TransitionKind.SCRATCH
    phases = request.phases or (StrategyPhase(parent, parent.first_step, parent.last_step or parent.first_step),)
    seconds = [value for _, value in request.series.points("step_seconds")]
    return {
        **_common(request.bounds, pictures),
        "scratch": scratch,
        "statistics": [str(statistic) for statistic in Statistic],
        "parent": parent.id,
        "configuration": configuration_text(configuration),
        "strategy": _strategy(phases, request.strategy, scratch=scratch),
        "metrics": summaries.table(request.series),
        "unreported": ", ".join(summaries.unreported(request.series)),
        "validations": summaries.listed(request.series.points(VALIDATION_SCORE), _MOST_VALIDATIONS),
        "tried": _tried(request.siblings, configuration, scratch=scratch),
        "checkpoints": _checkpoints(request),
        "best_score": _score(request.best_score),
        "iterations_left": request.iterations_left,
        "device_hours_left": "" if request.device_hours_left is None else summaries.shown(request.device_hours_left),
        "strategy_hours_left": ""
        if request.strategy_hours_left is None
        else summaries.shown(request.strategy_hours_left),
        "parent_hours": summaries.shown(parent.device_seconds / 3600),
        "train_rows": request.train_rows,
        "validate_every_steps": request.validate_every_steps,
        "parent_steps": parent.total_steps or configuration.steps(request.train_rows),
        "step_seconds": summaries.shown(math.fsum(seconds) / len(seconds)) if seconds else "",
    }


def of_stop(request: StopRequest, pictures: Sequence[Picture]) -> dict[str, Any]:
    """For the early stopper."""
    node = request.node
    start = _score_before(request.strategy, node.first_step)
    newest = request.series.rows[-1].step if request.series.rows else node.first_step - 1
    return {
        **_common({}, pictures),
        "node": node.id,
        "scratch": node.resume is None,
        "first_step": node.first_step,
        "newest_step": newest,
        "last_step": request.last_step,
        "best_score": _score(request.best_score),
        "start_score": _score(start),
        "comparison": _comparison(request),
        "best_validations": summaries.listed(request.best.points(VALIDATION_SCORE), _MOST_COMPARED // 2),
        "metrics": summaries.table(request.series, WATCHED),
    }


def of_failure(request: FailureRequest, pictures: Sequence[Picture]) -> dict[str, Any]:
    """For the error analyzer."""
    node, configuration = request.node, _known(request.node)
    before = request.resumed.configuration if request.resumed else None
    return {
        **_common(request.bounds, pictures),
        "node": node.id,
        "first_step": node.first_step,
        "last_step": node.last_step,
        "total_steps": node.total_steps,
        "resumed": None if request.resumed is None else request.resumed.id,
        "changes": _changes(before, configuration) if before else "",
        "configuration": configuration_text(configuration),
        "ending": "" if request.ending is None else request.ending.value,
        "exit_code": request.exit_code,
        "attempts": "\n".join(f"- {_attempt(attempt)}" for attempt in node.attempts),
        "problem": quoted(node.problem) if node.problem else "",
        "log": fenced(request.log_tail[-_LOG_CHARACTERS:]),
        "metrics": summaries.table(request.series),
        "checkpoints": summaries.listed(((point.step, point.score) for point in node.checkpoints), _MOST_CHECKPOINTS),
        "earlier": "\n".join(f"- {_outcome(repair, configuration)}" for repair in request.earlier),
    }


def of_skills(
    configuration: Configuration, bounds: Mapping[str, Bounds], skills: Sequence[str], tool_format: str, **task: Any
) -> dict[str, Any]:
    """For the system text of the skill agent; `task` holds what else it may write of the search."""
    return {
        **_common(bounds, ()),
        "configuration": fenced(configuration_text(configuration)),
        "skills": list(skills),
        "tool_format": tool_format,
        "first": 0,
        **task,
    }


def of_history(request: ProposalRequest) -> dict[str, Any]:
    """For the skill agent, when a phase has ended and the next is due: the newest phase, and all in a line each."""
    node, series = request.history[-1]
    earlier = {one.id: one for one, _ in request.history}
    base = _known(request.history[0][0])
    before = earlier.get(node.resume.node) if node.resume is not None else None
    return {
        **_of_phase(node, series, before, base),
        "running": False,
        "ending": _ending(node),
        "last_step": node.last_step,
        "checkpoints": summaries.listed(((point.step, point.score) for point in node.checkpoints), _MOST_CHECKPOINTS),
        "log": fenced(request.log_tail[-_LOG_CHARACTERS:]) if request.log_tail else "",
        "phases": "\n".join(f"- {_outcome(one, base)}" for one, _ in request.history),
        "best_score": _score(request.best_score),
        "phases_left": phases_left(request.iterations_left),
    }


def phases_left(count: int) -> str:
    """How many phases the budget has left; empty where compute is the limit, not their number."""
    return str(count) if count < _MANY_PHASES else ""


def of_running(request: StopRequest, base: Configuration) -> dict[str, Any]:
    """For the skill agent, when it looks at a running phase."""
    node = request.node
    before = next((one for one in request.rivals if node.resume is not None and one.id == node.resume.node), None)
    return {
        **_of_phase(node, request.series, before, base),
        "running": True,
        "ending": "",
        "last_step": request.last_step,
        "checkpoints": "",
        "log": "",
        "phases": "",
        "best_score": _score(request.best_score),
        "phases_left": "",
    }


def _of_phase(node: Node, series: Series, before: Node | None, base: Configuration) -> dict[str, Any]:
    compared = base if before is None else _known(before)
    return {
        "node": node.id,
        "first_step": node.first_step,
        "newest_step": series.rows[-1].step if series.rows else node.first_step - 1,
        "compared_with": "the first configuration" if before is None else f"phase {before.id}, which it resumed",
        "changes": _changes(compared, _known(node)),
        "validations": summaries.listed(series.points(VALIDATION_SCORE), _MOST_VALIDATIONS),
        "metrics": summaries.table(series),
    }


def configuration_text(configuration: Configuration) -> str:
    """A configuration as YAML, values exact."""
    lines = [f"{name}: {_exact(value)}" for name, value in configuration.values().items()]
    if configuration.overrides:
        lines.append("overrides:")
        lines += [f"  {json.dumps(key)}: {_exact(value)}" for key, value in configuration.overrides.items()]
    return "\n".join(lines)


def quoted(text: str) -> str:
    """Text of unknown origin for the middle of a sentence: one line, short, in quotation marks that it cannot close."""
    return '"' + clipped(plain(text).replace('"', "'").replace("`", "'"), _QUOTE) + '"'


def fenced(text: str) -> str:
    """Text of unknown origin as a block: without control characters, in a fence that it cannot close."""
    lines = [
        "".join(character if character.isprintable() else " " for character in line.expandtabs())
        for line in text.splitlines()
    ]
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join((f"{fence}text", *lines, fence))


def guide(bounds: Mapping[str, Bounds]) -> dict[str, str]:
    """The table of hyperparameters by class, each with its type, its limits in this search and its meaning."""
    return {
        kind.value: "\n".join(
            _guided(row, bounds.get(row.name, Bounds()))
            for row in HYPERPARAMETERS.values()
            if row.parameter_class is kind
        )
        for kind in ParameterClass
    }


def _common(bounds: Mapping[str, Bounds], pictures: Sequence[Picture]) -> dict[str, Any]:
    return {
        "meaning": dict(STEP_METRICS),
        "guide": guide(bounds),
        "images": [
            {
                "name": picture.name,
                "title": picture.title,
                "metrics": ", ".join(summaries.label(c.metric) for c in picture.curves),
            }
            for picture in pictures
        ],
    }


def _guided(row: Hyperparameter, own: Bounds) -> str:
    lows = [limit for limit in (row.low, own.low) if limit is not None]
    highs = [limit for limit in (row.high, own.high) if limit is not None]
    limits = f", {max(lows):g} to {min(highs):g}" if lows and highs else ""
    scale = ", by factors" if row.logarithmic else ""
    return f"- `{row.name}` ({_KINDS[row.kind]}{limits}{scale}): {row.meaning}"


def _known(node: Node) -> Configuration:
    if node.configuration is None:
        raise ValueError(f"node {node.id} has no configuration")
    return node.configuration


def _exact(value: Scalar | None) -> str:
    if value is None:
        return "unset"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def _changes(before: Configuration, after: Configuration) -> str:
    differences = before.differences(after)
    if not differences:
        return "nothing changed"
    return ", ".join(
        f"{clipped(plain(name), _QUOTE)} {_exact(old)} -> {_exact(new)}" for name, (old, new) in differences.items()
    )


def _score(value: float | None) -> str:
    return "none yet" if value is None else summaries.shown(value)


def _score_before(strategy: Series, first_step: int) -> float | None:
    """The newest validation before a step: what a phase that starts there has inherited."""
    return max(
        ((step, score) for step, score in strategy.points(VALIDATION_SCORE) if step < first_step), default=(0, None)
    )[1]


def _strategy(phases: Sequence[StrategyPhase], strategy: Series, *, scratch: bool) -> str:
    """Each transition with what it changed and what came of it, oldest first."""
    lines, before = [], None
    for phase in phases:
        node = phase.node
        parts = [f"- node {node.id}, steps {phase.first_step} to {phase.last_step}"]
        if node.configuration is not None and before is not None:
            parts.append(_changes(before, node.configuration))
        elif before is None:
            parts.append("from the base model")
        start = _score_before(strategy, phase.first_step)
        gain = (
            f" ({node.score - start:+.3f} on {summaries.shown(start)})"
            if start is not None and node.score is not None
            else ""
        )
        parts.append("no validation" if node.best is None else f"best validation {_best(node, scratch=scratch)}{gain}")
        parts.append(_ending(node))
        if node.rationale is not None and before is not None:
            parts.append(f"reason given then: {quoted(node.rationale.diagnosis)}")
        lines.append("; ".join(parts))
        before = node.configuration or before
    return "\n".join(lines)


def _best(node: Node, *, scratch: bool) -> str:
    best = node.best
    if best is None:
        return "none"
    return summaries.shown(best.score) if scratch else summaries.at((best.step, best.score))


def _ending(node: Node) -> str:
    match node.status:
        case NodeStatus.EARLY_STOPPED if node.stop is not None:
            return f"stopped early at step {node.stop.step}: {quoted(node.stop.reason)}"
        case NodeStatus.FAILED:
            return "failed" + (f": {quoted(node.problem)}" if node.problem else "")
        case status if not status.is_final:
            return "still under way" + ("" if node.last_step is None else f", at step {node.last_step}")
        case status:
            return status.value.replace("_", " ")


def _tried(siblings: Sequence[Sibling], against: Configuration, *, scratch: bool) -> str:
    lines = []
    for sibling in siblings[-_MOST_TRIED:]:
        gain = "" if scratch or sibling.gain is None else f"; {sibling.gain:+.3f} against its parent's best"
        lines.append(f"- {_outcome(sibling.node, against, scratch=scratch)}{gain}")
    left_out = len(siblings) - len(lines)
    return "\n".join([*([f"- {left_out} older ones are not shown"] if left_out > 0 else []), *lines])


def _outcome(node: Node, against: Configuration, *, scratch: bool = False) -> str:
    """A phase that was tried: how it differed, how it ended, what it reached."""
    parts = [f"node {node.id}: {_changes(against, _known(node))}"]
    if node.resume is not None and not scratch:
        parts.append(f"resumed after step {node.resume.step}")
    parts += [_ending(node), f"best validation {_best(node, scratch=scratch)}"]
    return "; ".join(parts)


def _checkpoints(request: ProposalRequest) -> str:
    return summaries.listed(((point.step, point.score) for point in request.checkpoints), _MOST_CHECKPOINTS)


def _comparison(request: StopRequest) -> str:
    """Validations of this run beside what the best strategy had reached by the same step."""
    best = request.best.points(VALIDATION_SCORE)
    rows = ["| step | this run | best strategy by then |", "| --- | --- | --- |"]
    for step, score in summaries.thinned(request.series.points(VALIDATION_SCORE), _MOST_COMPARED):
        reached = max((value for at, value in best if at <= step), default=None)
        rows.append(f"| {step} | {summaries.shown(score)} | {_score(reached)} |")
    return "\n".join(rows) if len(rows) > 2 else "No validation yet."  # noqa: PLR2004 - the head alone


def _attempt(attempt: Attempt) -> str:
    parts = [f"attempt {attempt.number}", attempt.ending.value.replace("_", " ") if attempt.ending else "not over"]
    if attempt.exit_code is not None:
        parts.append(f"exit code {attempt.exit_code}")
    if attempt.started_at is not None and attempt.ended_at is not None:
        parts.append(f"ran {summaries.shown(max(0.0, attempt.ended_at - attempt.started_at))} s")
    if attempt.restarts:
        parts.append(f"requeued {attempt.restarts} times")
    return ", ".join(parts)
