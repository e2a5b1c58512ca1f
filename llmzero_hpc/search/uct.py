"""Equations 5 to 8 of the paper (appendix D.2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmzero_hpc.search.rules import Rules
    from llmzero_hpc.search.statistics import ScoreRange, SubtreeStatistics


def uct_of_child(parent: SubtreeStatistics, child: SubtreeStatistics, scores: ScoreRange, rules: Rules) -> float:
    """Equation 5: what descending into a child promises."""
    return exploitation(child, scores, rules) + exploration(parent.visits, child.visits, rules)


def uct_of_new_child(
    parent: SubtreeStatistics, parent_score: float | None, places_taken: int, scores: ScoreRange, rules: Rules
) -> float:
    """Equation 6: what one more child promises, believed to do as well as its parent.

    `places_taken` is k: the children that count against the limit. A parent without a score (a failure) is worth 0.
    """
    prior = value(parent_score, scores, rules)
    fair_share = parent.visits / (places_taken + 1)
    return prior + exploration(parent.visits, fair_share, rules)


def exploration(parent_visits: int, visits: float, rules: Rules) -> float:
    """The second term of equations 5 and 6."""
    return rules.exploration * math.sqrt(math.log(parent_visits) / visits)


def exploitation(subtree: SubtreeStatistics, scores: ScoreRange, rules: Rules) -> float:
    """Equation 8: Q. The mean of raw scores is normalised, then shaped."""
    if subtree.total == 0:
        return 0.0
    return (
        subtree.validated / subtree.total * value(subtree.mean_score, scores, rules)
        - rules.failure_weight * max(0, subtree.failed - rules.forgiven_failures) / subtree.total
        - rules.early_stop_weight * subtree.early_stopped / subtree.total
    )


def value(score: float | None, scores: ScoreRange, rules: Rules) -> float:
    """Equation 7: a raw score on a scale from 0 to 1; no score is worth 0."""
    return 0.0 if score is None else shaped(normalized(score, scores), rules.shaping_temperature)


def normalized(score: float, scores: ScoreRange) -> float:
    """Equation 7, left: min-max over all scores of the tree; 1 where they are all equal."""
    if scores.lowest == scores.highest:
        return 1.0
    return (score - scores.lowest) / (scores.highest - scores.lowest)


def shaped(normalized_score: float, temperature: float) -> float:
    """Equation 7, right: (e^(s/T) - 1) / (e^(1/T) - 1), written so that a small temperature does not overflow."""
    decay = math.exp((normalized_score - 1) / temperature)
    return decay * math.expm1(-normalized_score / temperature) / math.expm1(-1 / temperature)
