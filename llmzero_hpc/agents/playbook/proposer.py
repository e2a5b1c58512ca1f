"""The playbook's proposer: from signals to a coordinated change, a checkpoint and a budget (section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import Proposal, ProposalRequest, Sibling
from llmzero_hpc.agents.playbook import scratch
from llmzero_hpc.agents.playbook.moves import Move, direction, fitted, limits, within_reach
from llmzero_hpc.agents.playbook.rules import Resume, Rule, compatible, firing
from llmzero_hpc.agents.playbook.signals import Signals, read
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass, Scalar
from llmzero_hpc.search.node import Checkpoint, Rationale, TransitionKind
from llmzero_hpc.search.strategy_cost import steps_paid

if TYPE_CHECKING:
    from llmzero_hpc.search.configuration import Bounds
    from llmzero_hpc.search.metrics import Series

AUTHOR = "playbook"

LEAST_LENGTH, MOST_LENGTH = 0.5, 2.0
"""A phase makes between half and twice the parent's steps: cheap steps buy more of them, within comparable budgets."""
LEAST_VALIDATIONS = 2
"""Validations that a phase should see before it ends, where its parent was long enough for them."""
_CONSEQUENCES = frozenset({"epochs", "mini_batches"})
"""Parameters that follow from others: no lesson is drawn from them."""
_JITTERED = ("learning_rate", "kl_coefficient", "temperature", "clip_range", "gradient_clip", "rollouts")
_JITTERS = 64
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class _Lessons:
    """Parameter and direction (+1, -1) to the sibling that moved it so and lost, or won; a winner outvotes a loser."""

    lost: Mapping[tuple[str, int], Sibling]
    won: Mapping[tuple[str, int], Sibling]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A remedy of the leading rule with the contributions of others, and what was learned from siblings."""

    rule: Rule
    values: Mapping[str, Scalar]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Start:
    """A fresh start that is planned."""

    configuration: Configuration
    diagnosis: str
    evidence: str


def propose(request: ProposalRequest) -> Proposal:
    """The next phase; pure, and valid whenever the parent's configuration is valid within the request's bounds."""
    base = request.parent.configuration or Configuration()
    if request.kind is TransitionKind.SCRATCH:
        return _scratch(request, base)
    signals = replace(read(request.series, request.strategy), is_last=_is_last(base, request))
    leader = firing(signals)[0]
    resume = resume_step(leader.resume, signals, request)
    tried = [_key(sibling.node.configuration, request) for sibling in request.siblings if sibling.node.configuration]
    chosen, configuration = _Plan(leader, {}), base
    for plan in _plans(signals, base, request):
        candidate = budgeted(fitted(base, plan.values, request.bounds), base, request)
        if not _only_consequences(base, candidate) and _key(candidate, request) not in tried:
            chosen, configuration = plan, candidate
            break
    evidence = (*_evidence(chosen.rule, signals), *_changes(base, configuration), *chosen.notes)
    if resume is not None:
        evidence += (f"resumes from step {resume}: {leader.resume.value}",)
    return Proposal(configuration, resume, Rationale(AUTHOR, chosen.rule.pathology, evidence, chosen.rule.name))


def resume_step(choice: Resume, signals: Signals, request: ProposalRequest) -> int | None:
    """The checkpoint decision: before the damage, or the last, unless it is worse than the best by more than noise."""
    points = request.checkpoints or request.parent.checkpoints
    if not points:
        return request.parent.resume.step if request.parent.resume else None
    if choice is Resume.BEFORE_DAMAGE:
        shifts = (signals.collapse, signals.kl_spike, signals.entropy_collapse)
        onset = min((shift.onset for shift in shifts if shift), default=math.inf)
        points = tuple(point for point in points if point.step < onset) or points
    best = max(points, key=lambda point: (point.score, -point.step))
    if choice is not Resume.LAST:
        return best.step
    last = max(points, key=lambda point: point.step)
    return last.step if best.score - last.score <= _tolerance(signals, best) else best.step


def budgeted(configuration: Configuration, parent: Configuration, request: ProposalRequest) -> Configuration:
    """With the epochs of a phase about as long as the parent.

    Steps are the parent's, times the root of the parent's tokens a step over the new ones, between half and twice: a
    larger batch or group, or a longer limit where responses reach it, gives fewer steps, and a shorter limit more. The
    root lies between as many steps and as many tokens, as a step costs time of its own and validations come by steps.
    Epochs follow from steps and batch size, and stay within the search's bounds.
    """
    steps = request.parent.total_steps or parent.steps(request.train_rows)
    ratio = _tokens(parent, parent, request.series) / _tokens(configuration, parent, request.series)
    wanted = max(1, round(steps * min(max(math.sqrt(ratio), LEAST_LENGTH), MOST_LENGTH)))
    wanted = max(wanted, min(steps, LEAST_VALIDATIONS * request.validate_every_steps))
    affordable = _affordable_steps(request, ratio)
    # A rest that is too short for a phase of its own goes to this one; the limit ends it to the step.
    if affordable is not None and affordable < wanted * (1 + LEAST_LENGTH):
        wanted = affordable
    steps_an_epoch = max(1, request.train_rows // configuration.batch_size)
    if configuration.changed(epochs=parent.epochs).steps(request.train_rows) == wanted:
        return configuration.changed(epochs=parent.epochs)
    # Rounded down, as the number of steps is rounded up.
    epochs = math.floor(wanted / steps_an_epoch * 1e6) / 1e6
    low, high = limits("epochs", request.bounds)
    return configuration.changed(epochs=float(min(max(epochs, low), high)))


def _is_last(base: Configuration, request: ProposalRequest) -> bool:
    """Whether what the strategy may cost ends with a phase as long as the parent."""
    steps = request.parent.total_steps or base.steps(request.train_rows)
    affordable = _affordable_steps(request, 1.0)
    return affordable is not None and affordable < steps * (1 + LEAST_LENGTH)


def _affordable_steps(request: ProposalRequest, ratio: float) -> int | None:
    """Steps that are left of what the strategy may cost, where one costs `1 / ratio` of the parent's; at least one."""
    spent = request.parent.device_seconds
    if request.strategy_hours_left is None or spent <= 0:
        return None
    a_step = spent / steps_paid(request.parent) / ratio
    return max(1, math.ceil(request.strategy_hours_left * _HOUR / a_step))


def _scratch(request: ProposalRequest, base: Configuration) -> Proposal:
    earlier = [base, *(sibling.node.configuration for sibling in request.siblings if sibling.node.configuration)]
    # One sequence for the whole search, whose points fill the space together: its seed is that of the oldest start.
    oldest = min((sibling.node for sibling in request.siblings), key=lambda node: node.id, default=None)
    # The first ones are changes of the root, and not of where the search has got to.
    root = oldest.configuration if oldest else None
    planned = _planned_starts(root, request.bounds) if root else []
    if root and len(request.siblings) <= len(planned):
        start = planned[len(request.siblings) - 1]
        evidence = (start.evidence, *_changes(root, start.configuration))
        rationale = Rationale(AUTHOR, start.diagnosis, evidence, "scratch")
        return Proposal(budgeted(start.configuration, base, request), None, rationale)
    drawn = scratch.draw(base, earlier, request.bounds, oldest.seed if oldest else request.seed)
    configuration = budgeted(drawn, base, request)
    evidence = (f"away from {len(earlier)} configurations that are known", *_changes(base, configuration))
    diagnosis = "A fresh start away from all earlier ones, so that no early choice anchors the search."
    return Proposal(configuration, None, Rationale(AUTHOR, diagnosis, evidence, "scratch"))


def _planned_starts(root: Configuration, bounds: Mapping[str, Bounds]) -> list[_Start]:
    """Fresh starts that are not drawn, in their order; fewer where the bounds forbid one."""
    starts = [
        (
            scratch.short_first(root, bounds),
            "A fresh start with short responses: cheap steps first, as capacity can grow later.",
            "the root with little capacity",
        ),
        (
            scratch.fast(root, bounds),
            "A fresh start at the root's capacity and a higher learning rate: short responses may be a trap.",
            "the root in a hurry",
        ),
    ]
    return [_Start(configuration, *words) for configuration, *words in starts if configuration]


def _plans(signals: Signals, base: Configuration, request: ProposalRequest) -> Iterator[_Plan]:
    """Remedies, the most fitting first: the leading rule's, those of others, the leader's again by halves."""
    fired = firing(signals)
    first, lessons = fired[0], _lessons(base, request.siblings)
    ranked = [(first, remedy, 1.0) for remedy in first.remedies]
    # Whoever insists is not contradicted by the next rule either.
    ranked += [
        (rule, remedy, 1.0)
        for rule in fired[1:]
        if first.reversible or compatible(first, rule)
        for remedy in rule.remedies
    ]
    ranked += [(first, remedy, 0.5) for remedy in first.remedies]
    for leader, remedy, share in ranked:
        moves = [(leader, move) for move in remedy]
        for other in fired if leader is first else ():
            if compatible(leader, other):
                known = {move.parameter for _, move in moves}
                moves += [(other, move) for move in other.remedies[0] if move.parameter not in known]
        strengths = {rule.name: share * rule.strength(signals) for rule in fired}
        plan = _informed(leader, moves, strengths, base, lessons)
        lead = remedy[0].parameter
        # A remedy whose first move the bounds or the lessons forbid is no remedy.
        if fitted(base, plan.values, request.bounds).value(lead) != base.value(lead):
            yield plan
    yield from _jitters(first, base, request)


def _informed(
    leader: Rule,
    moves: Sequence[tuple[Rule, Move]],
    strengths: Mapping[str, float],
    base: Configuration,
    lessons: _Lessons,
) -> _Plan:
    values: dict[str, Scalar] = {}
    notes = []
    for rule, move in moves:
        name, old = move.parameter, base.value(move.parameter)
        value = move.applied(base, strengths[rule.name])
        value = value if rule.beyond_reach else within_reach(name, old, value, base)
        loser = lessons.lost.get((name, direction(old, value)))
        if loser and (rule.reversible or HYPERPARAMETERS[name].parameter_class is ParameterClass.CAPACITY):
            other = move.reversed() if leader.reversible else None
            value = within_reach(name, old, other.applied(base, strengths[rule.name]), base) if other else old
            notes.append(_lesson(loser, name, "left as it is" if value == old else "the other way this time"))
        winner = lessons.won.get((name, -direction(old, value)))
        if winner and winner.node.configuration and value != old:
            value = winner.node.configuration.value(name)
            notes.append(_lesson(winner, name, "taken over"))
        if value != old:
            values[name] = value
    return _Plan(leader, values, tuple(notes))


def _lessons(base: Configuration, siblings: Sequence[Sibling]) -> _Lessons:
    lost: dict[tuple[str, int], Sibling] = {}
    won: dict[tuple[str, int], Sibling] = {}
    for sibling in siblings:
        configuration = sibling.node.configuration
        if configuration is None or sibling.node.kind is TransitionKind.SCRATCH:
            continue
        if sibling.gain is None and not sibling.node.status.is_final:
            continue
        outcome = won if sibling.gain is not None and sibling.gain > 0 else lost
        for name, (before, after) in base.differences(configuration).items():
            way = direction(before, after)
            if name in HYPERPARAMETERS and name not in _CONSEQUENCES and way:
                outcome[name, way] = sibling
    return _Lessons({key: sibling for key, sibling in lost.items() if key not in won}, won)


def _lesson(sibling: Sibling, name: str, conclusion: str) -> str:
    configuration = sibling.node.configuration or Configuration()
    outcome = (
        "failed" if sibling.gain is None else f"{'gained' if sibling.gain > 0 else 'lost'} {abs(sibling.gain):.3g}"
    )
    return f"node {sibling.node.id} with {name} {_shown(configuration.value(name))} {outcome}: {conclusion}"


def _jitters(rule: Rule, base: Configuration, request: ProposalRequest) -> Iterator[_Plan]:
    random = Random(f"{request.seed}:{request.parent.id}:{len(request.siblings)}")  # noqa: S311 - repeatable, not secret
    for _ in range(_JITTERS):
        values = {
            name: within_reach(name, base.value(name), Move(name, 2 ** random.uniform(-1.0, 1.0)).applied(base), base)
            for name in _JITTERED
        }
        yield _Plan(rule, values, ("all remedies were tried from here, or the bounds forbid them: a step at random",))


def _tokens(configuration: Configuration, parent: Configuration, series: Series) -> float:
    """Tokens that a step is expected to generate, from the lengths that the parent's responses had."""
    limit = float(configuration.max_response_length)
    lengths = series.points("response_length_mean")
    cut = series.points("response_clip_ratio")
    length = limit
    if lengths:
        observed, share = lengths[-1][1], cut[-1][1] if cut else 0.0
        length = min(limit, observed) + share * max(0.0, limit - parent.max_response_length)
    return configuration.batch_size * configuration.rollouts * max(1.0, length)


def _tolerance(signals: Signals, best: Checkpoint) -> float:
    return signals.validation.tolerance if signals.validation else 0.02 * abs(best.score)


def _only_consequences(base: Configuration, candidate: Configuration) -> bool:
    return base.differences(candidate).keys() <= _CONSEQUENCES


def _key(configuration: Configuration, request: ProposalRequest) -> tuple[object, ...]:
    """What makes two proposals from one parent the same: everything but the length of the phase."""
    values = {name: value for name, value in configuration.values().items() if name != "epochs"}
    return (request.parent.id, *values.items(), *sorted(configuration.overrides.items()))


def _evidence(rule: Rule, signals: Signals) -> tuple[str, ...]:
    others = [other for other in firing(signals) if other is not rule and compatible(rule, other)]
    return rule.evidence(signals) + tuple(
        f"also {other.name}: {text}" for other in others for text in other.evidence(signals)[:1]
    )


def _changes(before: Configuration, after: Configuration) -> tuple[str, ...]:
    return tuple(f"{name}: {_shown(old)} to {_shown(new)}" for name, (old, new) in before.differences(after).items())


def _shown(value: Scalar | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
