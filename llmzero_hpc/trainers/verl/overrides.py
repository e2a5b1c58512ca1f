"""Keys of VeRL that a configuration may set beyond the table: scalars that shape the optimization or spare memory.

An allow-list: paths, commands, loggers, machines, checkpoints, other engines and code are none of a proposal's
business, and what the table sets already has one name only.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.trainers.verl import schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmzero_hpc.search.hyperparameters import Scalar

ACTOR: Final = "actor_rollout_ref.actor"
MODEL: Final = "actor_rollout_ref.model"
REFERENCE: Final = "actor_rollout_ref.ref"
ROLLOUT: Final = "actor_rollout_ref.rollout"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may be; its type is VeRL's own (`schema`)."""

    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


_SHARE: Final = Limits(0.0, 1.0)
_ANY: Final = Limits()

OPTIMIZATION: Final[Mapping[str, Limits]] = MappingProxyType(
    {
        f"{ACTOR}.clip_ratio_high": Limits(0.01, 10.0),
        f"{ACTOR}.clip_ratio_c": Limits(1.01, 100.0),
        f"{ACTOR}.entropy_coeff": Limits(-1.0, 1.0),
        f"{ACTOR}.kl_loss_type": Limits(choices=("kl", "abs", "mse", "low_var_kl", "k1", "k2", "k3")),
        f"{ACTOR}.loss_agg_mode": Limits(
            choices=("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
        ),
        f"{ACTOR}.policy_loss.loss_mode": Limits(
            choices=("vanilla", "gspo", "sapo", "gpg", "clip_cov", "kl_cov", "geo_mean", "cispo")
        ),
        f"{ACTOR}.ppo_epochs": Limits(1, 16),
        f"{ACTOR}.shuffle": _ANY,
        f"{ACTOR}.optim.weight_decay": _SHARE,
        f"{ACTOR}.optim.lr_warmup_steps": Limits(-1, 1_000_000),
        f"{ACTOR}.optim.lr_warmup_steps_ratio": _SHARE,
        f"{ACTOR}.optim.lr_scheduler_type": Limits(choices=("constant", "cosine")),
        f"{ACTOR}.optim.min_lr_ratio": _SHARE,
        f"{ACTOR}.optim.num_cycles": Limits(0.0, 100.0),
        f"{ROLLOUT}.top_k": Limits(-1, 1_000_000),
        f"{ROLLOUT}.top_p": Limits(0.01, 1.0),
        "algorithm.use_kl_in_reward": _ANY,
        "algorithm.kl_penalty": Limits(choices=("kl", "abs", "mse", "low_var_kl", "k1", "k2", "k3")),
        "algorithm.kl_ctrl.type": Limits(choices=("fixed", "adaptive")),
        "algorithm.kl_ctrl.kl_coef": Limits(0.0, 10.0),
        "algorithm.kl_ctrl.horizon": Limits(1, 1_000_000_000),
        "algorithm.kl_ctrl.target_kl": Limits(1e-6, 100.0),
        "algorithm.rollout_correction.rollout_is": Limits(choices=("token", "sequence")),
        "algorithm.rollout_correction.rollout_is_threshold": Limits(1.0, 1000.0),
        "algorithm.rollout_correction.rollout_is_batch_normalize": _ANY,
    }
)
"""Keys that change what is learned."""

MEMORY: Final[Mapping[str, Limits]] = MappingProxyType(
    {
        f"{ACTOR}.ppo_max_token_len_per_gpu": Limits(1, 1_000_000),
        f"{ACTOR}.fsdp_config.param_offload": _ANY,
        f"{ACTOR}.fsdp_config.optimizer_offload": _ANY,
        f"{ACTOR}.entropy_checkpointing": _ANY,
        f"{ACTOR}.entropy_from_logits_with_chunking": _ANY,
        f"{MODEL}.enable_gradient_checkpointing": _ANY,
        f"{MODEL}.enable_activation_offload": _ANY,
        f"{ROLLOUT}.enforce_eager": _ANY,
        f"{ROLLOUT}.gpu_memory_utilization": Limits(0.1, 0.95),
        f"{ROLLOUT}.max_num_batched_tokens": Limits(256, 1_000_000),
        f"{ROLLOUT}.max_num_seqs": Limits(1, 65_536),
        f"{ROLLOUT}.tensor_model_parallel_size": Limits(1, 64),
    }
)
"""Keys that change what a phase needs and how fast it is, so that a phase that ran out of memory can be repaired."""

KEYS: Final[Mapping[str, Limits]] = MappingProxyType({**OPTIMIZATION, **MEMORY})
"""All keys that may be set."""

_OF_THE_TABLE: Final = {key: row.name for row in HYPERPARAMETERS.values() for key in row.verl_keys}


def problems(overrides: Mapping[str, Scalar]) -> list[str]:
    """Why these overrides are refused, a line for each; empty when they are not."""
    return [f"overrides.{key}: {found}" for key, value in overrides.items() if (found := _problem(key, value))]


def _problem(key: str, value: Scalar) -> str:
    limits = KEYS.get(key)
    if limits is None:
        return _refusal(key)
    kinds = schema.types()[key]
    if "float" in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value).__name__ not in kinds:
        return f"{value!r} is not of type {' or '.join(sorted(kinds - {'null'}))}"
    if limits.choices:
        return "" if value in limits.choices else f"{value!r} is none of {', '.join(limits.choices)}"
    if isinstance(value, bool | str):
        return ""
    if not math.isfinite(value):
        return f"{value!r} is not finite"
    if (limits.low is not None and value < limits.low) or (limits.high is not None and value > limits.high):
        return f"{value:g} is not between {limits.low:g} and {limits.high:g}"
    return ""


def _refusal(key: str) -> str:
    if key in _OF_THE_TABLE:
        return f"set {_OF_THE_TABLE[key]} instead"
    if key in schema.types():
        return "VeRL knows it, but a configuration may not set it (docs/verl.md lists those that it may)"
    close = difflib.get_close_matches(key, KEYS, n=1)
    advice = f"did you mean {close[0]!r}?" if close else "docs/verl.md lists those that may be set"
    return f"VeRL {schema.release()} has no such setting; {advice}"
