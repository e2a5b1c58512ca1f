"""The table of hyperparameters: what may change between phases, within which bounds, and its name in each trainer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Scalar = bool | int | float | str


class ParameterClass(StrEnum):
    """How a hyperparameter moves in the strategies the paper found (section 4.3.2)."""

    CAPACITY = "capacity"
    """Accumulates: lowering it discards what earlier phases built."""
    REGULARIZATION = "regularization"
    """Oscillates with the exploration-exploitation balance."""
    OTHER = "other"
    FIXED = "fixed"
    """Unchanged along a strategy, as the adapter's shape depends on it; a scratch phase may choose anew."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One row of the table.

    Attributes:
        name: the canonical name, a field of `Configuration`.
        kind: `int`, `float`, `bool` or `str`.
        low, high: inclusive hard bounds; None for `bool` and `str`.
        verl_keys: the Hydra keys of VeRL 0.9 that receive the value (all of them).
        trl_argument: the argument of TRL's `GRPOConfig` or PEFT's `LoraConfig` that receives it.
        logarithmic: steps on it are factors rather than differences.
    """

    name: str
    parameter_class: ParameterClass
    kind: type
    meaning: str
    verl_keys: tuple[str, ...]
    trl_argument: str
    low: float | None = None
    high: float | None = None
    logarithmic: bool = False


_ACTOR = "actor_rollout_ref.actor"
_MODEL = "actor_rollout_ref.model"
_ROLLOUT = "actor_rollout_ref.rollout"

_TABLE = (
    Hyperparameter(
        "max_response_length", ParameterClass.CAPACITY, int,
        "Longest response in tokens; a longer one is cut off and scored as it stands.",
        ("data.max_response_length",), "max_completion_length", 1, 131_072,
    ),
    Hyperparameter(
        "rollouts", ParameterClass.CAPACITY, int,
        "Responses sampled for each prompt; together they form the group whose rewards are compared.",
        (f"{_ROLLOUT}.n",), "num_generations", 2, 256,
    ),
    Hyperparameter(
        "learning_rate", ParameterClass.REGULARIZATION, float,
        "Constant step size of AdamW on the adapter's weights.",
        (f"{_ACTOR}.optim.lr",), "learning_rate", 1e-8, 1e-1, logarithmic=True,
    ),
    Hyperparameter(
        "kl_coefficient", ParameterClass.REGULARIZATION, float,
        "Weight of the KL divergence from the base model (not from the parent phase) in the loss; 0 is off.",
        (f"{_ACTOR}.kl_loss_coef",), "beta", 0.0, 10.0, logarithmic=True,
    ),
    Hyperparameter(
        "temperature", ParameterClass.REGULARIZATION, float,
        "Sampling temperature of the rollouts; validation decodes greedily.",
        (f"{_ROLLOUT}.temperature",), "temperature", 0.05, 3.0,
    ),
    Hyperparameter(
        "clip_range", ParameterClass.REGULARIZATION, float,
        "Policy-ratio clip range on both sides (nothing to do with cut-off responses).",
        (f"{_ACTOR}.clip_ratio_low", f"{_ACTOR}.clip_ratio_high"), "epsilon", 0.01, 0.99,
    ),
    Hyperparameter(
        "gradient_clip", ParameterClass.REGULARIZATION, float,
        "Largest norm of the gradient; a longer one is scaled down to it.",
        (f"{_ACTOR}.optim.clip_grad",), "max_grad_norm", 1e-4, 1e4, logarithmic=True,
    ),
    Hyperparameter(
        "batch_size", ParameterClass.OTHER, int,
        "Prompts of one GRPO step; times rollouts gives its responses.",
        ("data.train_batch_size",), "per_device_train_batch_size", 1, 65_536,
    ),
    Hyperparameter(
        "mini_batches", ParameterClass.OTHER, int,
        "Optimizer steps into which the prompts of one GRPO step are split; 1 is fully on-policy.",
        (f"{_ACTOR}.ppo_mini_batch_size",), "steps_per_generation", 1, 64,
    ),
    Hyperparameter(
        "epochs", ParameterClass.OTHER, float,
        "Passes over the training rows in this phase alone; fractions are allowed.",
        ("trainer.total_training_steps",), "max_steps", 1e-4, 1000.0,
    ),
    Hyperparameter(
        "advantage_normalization", ParameterClass.OTHER, bool,
        "Divide a group's advantages by their standard deviation.",
        ("algorithm.norm_adv_by_std_in_grpo",), "scale_rewards",
    ),
    Hyperparameter(
        "lora_rank", ParameterClass.FIXED, int, "Rank of the adapter.",
        (f"{_MODEL}.lora_rank",), "r", 1, 1024,
    ),
    Hyperparameter(
        "lora_alpha", ParameterClass.FIXED, int, "Scale of the adapter; the update is multiplied by alpha / rank.",
        (f"{_MODEL}.lora_alpha",), "lora_alpha", 1, 4096,
    ),
    Hyperparameter(
        "target_modules", ParameterClass.FIXED, str,
        "Layers that carry the adapter: 'all-linear', or names joined by commas.",
        (f"{_MODEL}.target_modules",), "target_modules",
    ),
)  # fmt: skip

HYPERPARAMETERS: Mapping[str, Hyperparameter] = MappingProxyType({row.name: row for row in _TABLE})
"""All rows by name, in the order in which people see them."""


def names_of(parameter_class: ParameterClass) -> tuple[str, ...]:
    """Names of one class, in table order."""
    return tuple(row.name for row in _TABLE if row.parameter_class is parameter_class)
