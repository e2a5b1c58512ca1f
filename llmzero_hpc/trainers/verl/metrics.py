"""From a line of VeRL's log to one row of canonical metrics, and what in it looks wrong."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from llmzero_hpc.trainers.base import EvaluationResult

if TYPE_CHECKING:
    from collections.abc import Mapping

CANONICAL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "reward_mean": "critic/score/mean",
        "kl": "actor/kl_loss",
        "policy_loss": "actor/pg_loss",
        "clip_fraction": "actor/pg_clipfrac",
        "grad_norm": "actor/grad_norm",
        "entropy": "actor/entropy",
        "response_length_mean": "response_length/mean",
        "learning_rate": "actor/lr",
        "step_seconds": "timing_s/step",
    }
)
"""Canonical metrics to VeRL's names. It has none for the share of prompts without a gradient."""
MISMATCH_LIMITS: Final[Mapping[str, float]] = MappingProxyType(
    {"rollout_corr/kl": 0.1, "training/rollout_probs_diff_mean": 0.05}
)
"""Above these the rollouts are not those of the policy that is trained: a few thousandths are usual with bfloat16."""

_SCORE: Final = re.compile(r"val-core/(?P<source>.+)/(?:acc|reward)/mean@[0-9]+")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a row needs to know of its phase: tokens a training response may have, responses of a step, its steps."""

    response_limit: int
    responses: int
    steps_per_epoch: int


def raw_metrics(data: Mapping[str, Any]) -> dict[str, float]:
    """VeRL's numbers under its names. Its log has `null` for what is not finite."""
    numbers = {name: math.nan if value is None else value for name, value in data.items()}
    return {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}


def canonical_metrics(raw: Mapping[str, float], step: int, shape: Shape) -> dict[str, float]:
    """Canonical metrics of a step of VeRL's count, without those of its validation."""
    values = {name: raw[theirs] for name, theirs in CANONICAL.items() if theirs in raw}
    values["epoch"] = step / shape.steps_per_epoch
    if "response_length/clip_ratio" in raw:
        # VeRL counts the responses that are as long as the longest of the step, whether anything was cut off or not.
        is_reached = raw.get("response_length/max", 0.0) >= shape.response_limit
        values["response_clip_ratio"] = raw["response_length/clip_ratio"] if is_reached else 0.0
    seconds = values.get("step_seconds", 0.0)
    if seconds > 0 and "response_length_mean" in values:
        values["tokens_per_second"] = values["response_length_mean"] * shape.responses / seconds
    return values


def validation_result(raw: Mapping[str, float], rows: Mapping[str, int]) -> EvaluationResult | None:
    """Scores of a validation; None where there was none, or the rows of a `data_source` are missing from it.

    Args:
        raw: from `raw_metrics`.
        rows: number of rows of each `data_source`; the score is the mean over all rows.
    """
    found = {match["source"]: value for name, value in raw.items() if (match := _SCORE.fullmatch(name))}
    if not rows or found.keys() != rows.keys() or not all(map(math.isfinite, found.values())):
        return None
    total = sum(rows.values())
    score = sum(found[source] * rows[source] for source in rows) / total
    return EvaluationResult(score, dict(sorted(found.items())), total)


def alarms(raw: Mapping[str, float]) -> dict[str, str]:
    """What looks wrong in a step: a name for it, and one line for people."""
    found = {}
    for name, limit in MISMATCH_LIMITS.items():
        if raw.get(name, 0.0) > limit:
            found[f"alarm/{name}"] = (
                f"{name} is {raw[name]:.4g}: the rollouts do not come from the policy that is trained"
            )
    broken = sorted(name for name in CANONICAL.values() if name in raw and not math.isfinite(raw[name]))
    if broken:
        found["alarm/not_finite"] = f"{', '.join(broken)}: not a finite number (nan or inf)"
    return found
