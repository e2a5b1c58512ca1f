"""From a phase's specification to the arguments of TRL's `GRPOConfig` and PEFT's `LoraConfig`; imports neither.

A GRPO step is one generation: `batch_size` prompts times `rollouts` responses, split into `mini_batches` optimizer
steps. TRL counts optimizer steps, and its `steps_per_generation` counts forward and backward passes. It shuffles all
responses before it splits them, where VeRL keeps those to one prompt together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmzero_hpc.trainers.steps import step_seed
from llmzero_hpc.trainers.trl.deepspeed import deepspeed_config

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.sections import Hardware
    from llmzero_hpc.trainers.base import PhaseSpec


@dataclass(frozen=True, slots=True)
class StepShape:
    """How one GRPO step is divided.

    Attributes:
        per_device: responses of one forward and backward pass on each device.
        passes_per_update: passes whose gradients one optimizer step adds up.
        updates: optimizer steps of one GRPO step.
        passes_per_generation: passes over which one generation is spread; TRL's `steps_per_generation`.
    """

    per_device: int
    passes_per_update: int
    updates: int
    passes_per_generation: int


def step_shape(configuration: Configuration, hardware: Hardware) -> StepShape:
    """The division of a GRPO step; the micro-batch is the largest that divides a mini-batch and is not too large.

    Raises:
        ValueError: the responses of a mini-batch cannot be shared out evenly among the devices.
    """
    devices = max(1, hardware.gpus)
    mini_batch = configuration.batch_size * configuration.rollouts // configuration.mini_batches
    if mini_batch % devices:
        raise ValueError(
            f"batch_size: a mini-batch of {mini_batch} responses (batch_size x rollouts / mini_batches) "
            f"cannot be shared out evenly among {devices} GPUs"
        )
    share = mini_batch // devices
    largest = min(share, hardware.micro_batch_size or share)
    per_device = next(size for size in range(largest, 0, -1) if share % size == 0)
    passes = share // per_device
    iterations = int(configuration.overrides.get("num_iterations", 1))
    return StepShape(
        per_device=per_device,
        passes_per_update=passes,
        updates=configuration.mini_batches * iterations,
        passes_per_generation=configuration.mini_batches * passes,
    )


def uses_cuda(hardware: Hardware) -> bool:
    """Whether training runs on GPUs, by what is configured alone."""
    return hardware.device == "cuda" or (hardware.device == "auto" and hardware.gpus > 0)


def uses_bfloat16(hardware: Hardware) -> bool:
    """Whether weights and activations of the base model are bfloat16; the adapter's weights stay float32."""
    return hardware.precision == "bfloat16" or (hardware.precision == "auto" and uses_cuda(hardware))


def grpo_arguments(spec: PhaseSpec, steps: int, scratch: Path, longest_prompt: int) -> dict[str, Any]:
    """Arguments of `GRPOConfig` for the last `steps` GRPO steps of a phase.

    The loss is VeRL's GRPO, the mean over all tokens, which TRL calls `dapo`; what TRL calls `grpo` averages
    over each response first.

    Args:
        spec: the phase.
        steps: GRPO steps still to make.
        scratch: a folder that TRL may write to.
        longest_prompt: tokens; vLLM reserves its memory by it.
    """
    configuration, hardware = spec.configuration, spec.hardware
    shape = step_shape(configuration, hardware)
    cuda = uses_cuda(hardware)
    arguments: dict[str, Any] = {
        "output_dir": str(scratch),
        "max_steps": steps * shape.updates,
        "seed": step_seed(spec.seed, spec.node, 0),
        # the table
        "max_completion_length": configuration.max_response_length,
        "num_generations": configuration.rollouts,
        "learning_rate": configuration.learning_rate,
        "beta": configuration.kl_coefficient,
        "temperature": configuration.temperature,
        "epsilon": configuration.clip_range,
        "max_grad_norm": configuration.gradient_clip,
        "per_device_train_batch_size": shape.per_device,
        "gradient_accumulation_steps": shape.passes_per_update,
        "steps_per_generation": shape.passes_per_generation,
        "scale_rewards": "group" if configuration.advantage_normalization else "none",
        # what VeRL's GRPO does
        "loss_type": "dapo",
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "use_bias_correction_kl": False,
        "disable_dropout": True,
        # the rows come in their order, the files are ours
        "shuffle_dataset": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        # the machine
        "use_cpu": not cuda,
        "bf16": cuda and uses_bfloat16(hardware),
        "dataloader_pin_memory": cuda,
        "gradient_checkpointing": hardware.gradient_checkpointing,
        "use_vllm": hardware.vllm,
    }
    if hardware.vllm:
        longest_response = max(configuration.max_response_length, spec.validation_max_response_length)
        arguments |= {
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": hardware.vllm_memory_utilization or 0.4,
            "vllm_max_model_length": longest_prompt + longest_response,
        }
    if hardware.deepspeed_stage:
        arguments["deepspeed"] = deepspeed_config(
            hardware.deepspeed_stage, shape, gradient_clip=configuration.gradient_clip, bfloat16=arguments["bf16"]
        )
    return arguments | dict(configuration.overrides)


def lora_arguments(configuration: Configuration) -> dict[str, Any]:
    """Arguments of `LoraConfig`."""
    names = [name.strip() for name in configuration.target_modules.split(",")]
    return {
        "r": configuration.lora_rank,
        "lora_alpha": configuration.lora_alpha,
        "target_modules": names[0] if names == ["all-linear"] else names,
        "lora_dropout": 0.0,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
