"""From TRL's logs of a step's optimizer steps to one row of canonical metrics."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CANONICAL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "reward_mean": "reward",
        "kl": "kl",
        "clip_fraction": "clip_ratio/region_mean",
        "grad_norm": "grad_norm",
        "entropy": "entropy",
        "response_length_mean": "completions/mean_length",
        "response_clip_ratio": "completions/clipped_ratio",
        "learning_rate": "learning_rate",
        "zero_std_fraction": "frac_reward_zero_std",
    }
)
"""Canonical metrics to TRL's names; what is measured in every optimizer step is averaged over those of the step."""


def raw_metrics(logs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """TRL's numbers of one GRPO step under TRL's names, averaged over the optimizer steps that reported them."""
    found: dict[str, list[float]] = {}
    for log in logs:
        for name, value in log.items():
            if isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


def canonical_metrics(
    raw: Mapping[str, float], *, kl_coefficient: float, epoch: float, responses: int, seconds: float
) -> dict[str, float]:
    """Canonical metrics of one GRPO step.

    Args:
        raw: from `raw_metrics`.
        kl_coefficient: TRL's loss includes the KL term; the canonical one is the surrogate alone.
        epoch: passes over the training rows since the phase began.
        responses: generated in this step.
        seconds: wall time of the step.
    """
    values = {name: raw[theirs] for name, theirs in CANONICAL.items() if theirs in raw}
    values["epoch"] = epoch
    values["step_seconds"] = seconds
    if "loss" in raw:
        values["policy_loss"] = raw["loss"] - kl_coefficient * raw.get("kl", 0.0)
    if "response_length_mean" in values:
        values["tokens_per_second"] = values["response_length_mean"] * responses / max(seconds, 1e-9)
    return values
