"""The DeepSpeed configuration of a phase: ZeRO 2 shards optimizer and gradients, ZeRO 3 the weights as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmzero_hpc.trainers.trl.arguments import StepShape


def deepspeed_config(stage: int, shape: StepShape, *, gradient_clip: float, bfloat16: bool) -> dict[str, Any]:
    """DeepSpeed's JSON configuration; the optimizer is the trainer's own."""
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:  # noqa: PLR2004 - ZeRO's name for sharded weights
        zero |= {
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "reduce_bucket_size": "auto",
        }
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": bfloat16},
        "gradient_clipping": gradient_clip,
        "gradient_accumulation_steps": shape.passes_per_update,
        "train_micro_batch_size_per_gpu": shape.per_device,
        "zero_allow_untested_optimizer": True,
        "wall_clock_breakdown": False,
        "steps_per_print": 1_000_000_000,
    }
