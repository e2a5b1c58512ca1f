"""Keys of TRL's `GRPOConfig` that a configuration may set beyond the table: scalars that only shape the optimisation.

An allow-list: paths, loggers, the hub, launchers, resuming, precision and code are none of a proposal's business, and
what the table sets already has one name only.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from llmzero_hpc.search.hyperparameters import Scalar


@dataclass(frozen=True, slots=True)
class _Key:
    kind: type
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


KEYS: Final[Mapping[str, _Key]] = MappingProxyType(
    {
        "adam_beta1": _Key(float, 0.0, 0.9999),
        "adam_beta2": _Key(float, 0.0, 0.99999),
        "adam_epsilon": _Key(float, 1e-12, 1e-2),
        "delta": _Key(float, 1.0, 100.0),
        "entropy_coef": _Key(float, 0.0, 1.0),
        "epsilon_high": _Key(float, 0.01, 10.0),
        "importance_sampling_level": _Key(str, choices=("token", "sequence")),
        "loss_type": _Key(str, choices=("dapo", "grpo", "bnpo", "dr_grpo")),
        "mask_truncated_completions": _Key(bool),
        "num_iterations": _Key(int, 1, 16),
        "off_policy_mask_threshold": _Key(float, 1e-4, 100.0),
        "top_entropy_quantile": _Key(float, 0.01, 1.0),
        "top_k": _Key(int, 0, 1_000_000),
        "top_p": _Key(float, 0.01, 1.0),
        "use_bias_correction_kl": _Key(bool),
        "weight_decay": _Key(float, 0.0, 1.0),
    }
)


def problems(overrides: Mapping[str, Scalar], known: Collection[str] = KEYS.keys()) -> list[str]:
    """Why these overrides are refused where only some keys are `known`; empty when they are not."""
    return [found for name, value in overrides.items() if (found := _problem(name, value, known))]


def _problem(name: str, value: Scalar, known: Collection[str]) -> str:
    key = KEYS.get(name)
    if key is None or name not in known:
        return f"overrides.{name}: not a key that may be set; known are {', '.join(known)}"
    if key.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not key.kind:
        return f"overrides.{name}: {value!r} is not of type {key.kind.__name__}"
    if key.choices and value not in key.choices:
        return f"overrides.{name}: {value!r} is none of {', '.join(key.choices)}"
    if not isinstance(value, str) and not _within(value, key.low, key.high):
        return f"overrides.{name}: {value:g} is not between {key.low:g} and {key.high:g}"
    return ""


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)
