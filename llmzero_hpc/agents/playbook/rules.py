"""The rules of the playbook: a pathology of a phase, and the coordinated change that answers it.

In order of severity: the first that fires leads, later ones contribute what does not contradict it. Each rule moves
several parameters at once, as the highest-gain transitions of the paper do (section 4.3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from llmzero_hpc.agents.playbook.moves import Move
from llmzero_hpc.agents.playbook.signals import (
    ENTROPY_COLLAPSE,
    EXPLOSION,
    GRADIENT_VANISHED,
    KL_LARGE_SPIKE,
    KL_NOTICEABLE,
    KL_SPIKE,
    SILENT_PROMPTS,
    TRUNCATED,
    Signals,
)
from llmzero_hpc.agents.playbook.trend import COLLAPSED

KL_START = 1e-3
"""Where a KL coefficient of zero begins when it is raised: the paper's practitioner default."""
MORE_TOKENS = 7 / 6
"""The paper's step of response length, 6144 to 7168 tokens (section 4.3.1)."""
MORE_ROLLOUTS = 1.5
"""8 to 12, neighbours in the paper's range (appendix B.2)."""
MUCH_TRUNCATION = 0.5
"""Share of cut-off responses that asks for the full doubling of the limit."""


class Stance(StrEnum):
    """Which way a rule pushes the balance of exploration and exploitation; opposite stances are not mixed."""

    TIGHTEN = "tighten"
    LOOSEN = "loosen"
    GROW = "grow"
    """Capacity only: goes with either."""


class Resume(StrEnum):
    """Which checkpoint the next phase starts from."""

    LAST = "last"
    """The last; the best where the last is worse by more than the noise."""
    BEFORE_DAMAGE = "before the damage"
    """The best one from before the damage began."""
    BEST = "best"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the playbook.

    Attributes:
        remedies: coordinated changes, the next for when the one before was tried from the same parent.
        reversible: when a sibling that moved a parameter so has lost, the other direction is worth a try. Where it
            is not (nobody loosens a policy that runs away), the rule insists, with its next remedy.
        evidence: the numbers it fired on, in words.
        strength: how much of the change the severity asks for, in (0, 1].
        beyond_reach: it may leave the usual ranges for what the search allows: those are for policies that learn.
    """

    name: str
    pathology: str
    fires_when: str
    source: str
    stance: Stance
    resume: Resume
    reversible: bool
    remedies: tuple[tuple[Move, ...], ...]
    fires: Callable[[Signals], bool]
    evidence: Callable[[Signals], tuple[str, ...]]
    strength: Callable[[Signals], float] = lambda _: 1.0
    beyond_reach: bool = False


def firing(signals: Signals) -> tuple[Rule, ...]:
    """The rules that fire, most severe first; never empty."""
    return tuple(rule for rule in RULES if rule.fires(signals))


def compatible(leader: Rule, other: Rule) -> bool:
    """Whether `other` may contribute to a change that `leader` leads."""
    return (
        other is not leader
        and other.name not in _ALONE
        and (other.stance in {leader.stance, Stance.GROW} or leader.stance is Stance.GROW)
    )


def _lr(factor: float) -> Move:
    return Move("learning_rate", factor)


def _kl(factor: float, start: float = KL_START) -> Move:
    return Move("kl_coefficient", factor, start=start)


def _temperature(shift: float) -> Move:
    return Move("temperature", shift=shift)


_NORMALIZE = Move("advantage_normalization", value=True)


def _validation(signals: Signals) -> tuple[str, ...]:
    if signals.validation is None:
        return ()
    slopes = ", ".join(f"{slope:.2g}" for slope in signals.validation.slopes)
    pace = f"its slope by thirds is {slopes} a step, its last gain {signals.validation.last_gain:.2g}"
    return (signals.validation.words, pace)


def _kl_strength(signals: Signals) -> float:
    # The paper answered a 16-fold spike with 5 times the KL coefficient (section 4.3.1); smaller ones ask for less.
    ratio = signals.kl_spike.ratio if signals.kl_spike else KL_LARGE_SPIKE
    return min(1.0, max(0.4, math.log(ratio) / math.log(KL_LARGE_SPIKE)))


def _truncation_strength(signals: Signals) -> float:
    least = math.log(MORE_TOKENS) / math.log(2)
    return min(1.0, max(least, (signals.truncation or 0.0) / MUCH_TRUNCATION))


RULES: tuple[Rule, ...] = (
    Rule(
        "collapse",
        "The policy collapsed: what it had learned is gone.",
        f"reward or validation lost {COLLAPSED:.0%} of its peak, a metric was not finite, or the gradient norm reached "
        f"{EXPLOSION:g} times its level, if that was not below {GRADIENT_VANISHED:g}, while either fell",
        "section 4.3.2, 'model collapse after aggressive LR scaling'",
        Stance.TIGHTEN, Resume.BEFORE_DAMAGE, reversible=False,
        remedies=(
            (_lr(0.4), _kl(2.0), Move("gradient_clip", 0.5)),
            (_lr(0.25), Move("clip_range", 0.75), Move("batch_size", 2.0)),
        ),
        fires=lambda s: s.collapse is not None,
        evidence=lambda s: (s.collapse.words,) if s.collapse else (),
    ),
    Rule(
        "kl_spike",
        "The policy runs away from the base model, which precedes a fall of validation by one or two phases.",
        f"late KL is {KL_SPIKE:g} times its earlier level (while validation rises: "
        f"{KL_LARGE_SPIKE:g} times the middle third's) and above "
        f"{KL_NOTICEABLE:g} nats a token",
        "section 4.3.1 (ChemCoT phase 3): '16x KL loss spike' answered by a '5x KL penalty increase'",
        Stance.TIGHTEN, Resume.BEFORE_DAMAGE, reversible=False,
        remedies=(
            (_kl(5.0), _lr(0.7), _temperature(-0.1)),
            (_lr(0.4), Move("clip_range", 0.75), _kl(2.0)),
        ),
        fires=lambda s: s.kl_spike is not None,
        evidence=lambda s: tuple(shift.words for shift in (s.kl_spike, s.length_inflation) if shift),
        strength=_kl_strength,
    ),
    Rule(
        "entropy_collapse",
        "The policy has stopped exploring.",
        f"late entropy is at most {ENTROPY_COLLAPSE:g} of its early level and validation does not improve",
        "section 4.3.1 (WildSci phase 4): 'relaxes the KL penalty, lowers the LR, and raises both the temperature and "
        "the clip ratio'",
        Stance.LOOSEN, Resume.BEFORE_DAMAGE, reversible=False,
        remedies=(
            (_temperature(+0.2), _kl(0.4), _lr(0.6), Move("clip_range", 1.25)),
            (_temperature(+0.1), _lr(0.5), Move("rollouts", MORE_ROLLOUTS)),
        ),
        fires=lambda s: s.entropy_collapse is not None,
        evidence=lambda s: ((s.entropy_collapse.words,) if s.entropy_collapse else ()) + _validation(s),
    ),
    Rule(
        "overfit",
        "The policy learns the training prompts rather than the task.",
        "validation ends clearly below its best while the training reward rises",
        "section 4.3.1 (KL 'preceded validation degradation'), reading of appendix F.1",
        Stance.TIGHTEN, Resume.BEST, reversible=False,
        remedies=(
            (_lr(0.5), _kl(3.0), Move("batch_size", 2.0)),
            (_lr(0.6), _temperature(+0.1), Move("rollouts", MORE_ROLLOUTS)),
        ),
        fires=lambda s: s.overfit is not None and s.collapse is None,
        evidence=lambda s: tuple(item.words for item in (s.overfit, s.reward) if item),
    ),
    Rule(
        "regression",
        "The whole phase stayed below where it started: its constraints held learning back.",
        "two validations or more, none of which reaches the score of the checkpoint that the phase resumed from",
        "section 4.3.1 (SSMR-Bench phase 3): 'reverses the core constraints', LR 3e-5 to 5e-5, KL 0.002 to 0.001, clip "
        "to 0.30",
        Stance.LOOSEN, Resume.LAST, reversible=True,
        remedies=(
            (_lr(5 / 3), _kl(0.5), Move("clip_range", 1.5)),
            (_lr(0.5), _kl(2.0), _temperature(-0.1)),
        ),
        fires=lambda s: s.regression is not None and s.collapse is None and s.kl_spike is None and s.overfit is None,
        evidence=lambda s: (s.regression.words,) if s.regression else (),
    ),
    Rule(
        "truncation",
        "Responses are cut off at the limit, which then decides their reward.",
        f"at least {TRUNCATED:.0%} of the late responses end at the limit, and their share has not halved while "
        "validation improves",
        "section 4.3.1 (ChemCoT phase 4, SSMR-Bench phase 4: 6144 to 7168 tokens); the way back is no finding of the "
        "paper: some policies learn to stop under a short limit",
        Stance.GROW, Resume.LAST, reversible=False,
        remedies=(
            (Move("max_response_length", 2.0), _temperature(-0.1)),
            (Move("max_response_length", 0.6), _lr(1.25)),
            (_temperature(-0.2), _kl(0.5), Move("rollouts", MORE_ROLLOUTS)),
        ),
        fires=lambda s: s.truncation is not None,
        evidence=lambda s: (f"{s.truncation or 0.0:.0%} of the responses of the last third were cut off",),
        strength=_truncation_strength,
    ),
    Rule(
        "no_reward_variance",
        "Most prompts earn the same reward whatever is answered, and teach nothing.",
        f"at least {SILENT_PROMPTS:.0%} of the late prompts have no reward variance and validation does not improve",
        "sections 4.3.1 and 4.3.2: rollouts are capacity; equation of GRPO's group advantage (no spread, no gradient)",
        Stance.LOOSEN, Resume.LAST, reversible=False,
        remedies=(
            (_temperature(+0.25), Move("rollouts", 1.5), Move("batch_size", 0.5)),
            (_temperature(+0.4), _kl(0.5), _NORMALIZE),
        ),
        beyond_reach=True,
        fires=lambda s: s.silent_prompts is not None and s.collapse is None,
        evidence=lambda s: (
            f"{s.silent_prompts or 0.0:.0%} of the prompts of the last third had no reward variance"
            + (f" at a mean reward of {s.reward_level:.3g}" if s.reward_level is not None else ""),
        ),
    ),
    Rule(
        "vanishing_gradient",
        "The updates have become too small to change anything.",
        f"the gradient norm or the clip fraction fell to a tenth of its early level, or the norm is below "
        f"{GRADIENT_VANISHED:g}, and validation does not improve",
        "section 4.3.1 (ChemCoT phase 5): 'low gradient norms (<0.001) and flat validation', raising LR and rollouts "
        "'while reducing batch size', and the KL penalty",
        Stance.LOOSEN, Resume.LAST, reversible=True,
        remedies=(
            (_lr(2.0), Move("rollouts", MORE_ROLLOUTS), Move("batch_size", 0.5), _kl(2.0)),
            (_lr(1.5), _temperature(+0.1), _NORMALIZE),
        ),
        fires=lambda s: s.vanishing_gradient is not None and s.collapse is None,
        evidence=lambda s: (s.vanishing_gradient.words,) if s.vanishing_gradient else (),
    ),
    Rule(
        "last_phase",
        "What one strategy may cost ends with this phase: time to converge.",
        "the search limits what a strategy may cost, and what is left is one phase",
        "none: ours. Smaller steps at the end average out the noise of the updates, as any learning-rate schedule does",
        Stance.TIGHTEN, Resume.LAST, reversible=True,
        remedies=(
            (_lr(0.5), _temperature(-0.1)),
            (_lr(0.7), Move("batch_size", 0.5)),
        ),
        fires=lambda s: s.is_last and s.collapse is None,
        evidence=lambda s: ("the rest of what the strategy may cost goes to this phase", *_validation(s)),
    ),
    Rule(
        "plateau",
        "Validation no longer improves.",
        "the later half of the phase brought no better validation, beyond the noise",
        "section 3.4: 'raising LR to escape a plateau while increasing KL penalty to prevent divergence'; section "
        "4.3.1 (PaperSearchQA phase 4): 'LR doubles, temperature increases, and batch size decreases'",
        Stance.LOOSEN, Resume.LAST, reversible=True,
        remedies=(
            (_lr(2.0), _kl(2.0), _temperature(+0.1), Move("batch_size", 0.5)),
            (_lr(0.5), Move("rollouts", MORE_ROLLOUTS), Move("max_response_length", MORE_TOKENS)),
        ),
        fires=lambda s: s.stalled and s.collapse is None and s.overfit is None and s.regression is None,
        evidence=_validation,
    ),
    Rule(
        "slowing",
        "Validation still improves, at less than half of its early pace: time to converge.",
        "validation rises, and its later half at less than half of the pace of its earlier half, beyond the noise",
        "section 4.3.1 (SSMR-Bench phase 4): 're-tightens for convergence' with LR 5e-5 to 3e-5, KL 0.001 to 0.002, T "
        "1.1 to 1.0 and 'expanded response length'",
        Stance.TIGHTEN, Resume.LAST, reversible=True,
        remedies=(
            (_lr(0.6), _kl(2.0, start=0), _temperature(-0.1), Move("max_response_length", MORE_TOKENS)),
            (_lr(0.7), Move("batch_size", 0.5)),
        ),
        fires=lambda s: s.slowing,
        evidence=_validation,
    ),
    Rule(
        "progress",
        "Healthy: validation rises steadily.",
        "validation rises without slowing down",
        "section 4.3.2: 'capacity parameters should accumulate monotonically'; the learning rate is no finding of the "
        "paper: a steady pace is far from its end, and the rules above take back what was too fast",
        Stance.LOOSEN, Resume.LAST, reversible=True,
        remedies=(
            (_lr(1.4), Move("max_response_length", MORE_TOKENS)),
            (_lr(0.7), Move("batch_size", 0.5), Move("rollouts", MORE_ROLLOUTS)),
        ),
        fires=lambda s: s.improving and not s.slowing,
        evidence=_validation,
    ),
    Rule(
        "unclear",
        "The metrics show nothing that a rule knows.",
        "no other rule fires: few rows, or no validation",
        "none: a moderate step in both directions",
        Stance.TIGHTEN, Resume.LAST, reversible=True,
        remedies=(
            (_lr(0.7), Move("rollouts", MORE_ROLLOUTS), _kl(1.5, start=0)),
            (_lr(1.4), _temperature(+0.1), Move("clip_range", 1.25)),
        ),
        fires=lambda s: not any(rule.fires(s) for rule in RULES if rule.name != "unclear"),
        evidence=lambda s: (f"{s.rows} rows and {s.validations} validations",),
    ),
)  # fmt: skip
"""All rules, most severe first."""

_ALONE = frozenset({"slowing", "progress", "unclear"})
"""Rules about health: they lead or are silent."""
