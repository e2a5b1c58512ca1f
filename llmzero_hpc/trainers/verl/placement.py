"""What a phase gets of the GPUs: the defaults for a model and its hardware, and what a configuration overrides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from llmzero_hpc.sections import FilesTask
from llmzero_hpc.trainers.verl import memory
from llmzero_hpc.trainers.verl.batch import Processes, processes, uses_cuda
from llmzero_hpc.trainers.verl.overrides import ACTOR, MODEL, ROLLOUT

if TYPE_CHECKING:
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.hyperparameters import Scalar
    from llmzero_hpc.sections import Hardware, TaskConfig
    from llmzero_hpc.trainers.verl.model_shape import ModelShape

_CHAINS_PROMPT: Final = 64
"""Tokens that the longest prompt of the chains task stays below."""
_UNKNOWN_MODEL: Final = (16_384, 0.5)
"""Tokens of a pass and vLLM's share for a model whose shape cannot be told: VeRL's defaults."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How a phase uses its machines.

    Attributes:
        processes: training processes.
        tensor_parallel: GPUs for one copy of vLLM's weights.
        utilization: share of GPU memory for vLLM.
        pass_tokens: tokens of one forward and backward pass on each GPU, with dynamic batches.
        checkpointing: activations inside of layers are computed again.
        estimate: GPU memory; None on CPUs, and for a model whose shape cannot be told.
    """

    processes: Processes
    tensor_parallel: int
    utilization: float
    pass_tokens: int
    checkpointing: bool
    estimate: memory.Estimate | None


def longest_prompt(task: TaskConfig) -> int:
    """Tokens that no prompt of a task exceeds."""
    return task.max_prompt_length if isinstance(task, FilesTask) else _CHAINS_PROMPT


def placed(hardware: Hardware, configuration: Configuration, model: ModelShape | None, longest: int) -> Placement:
    """The placement of a phase whose longest sequence has `longest` tokens, prompt included.

    Raises:
        ValueError: it cannot be placed on these GPUs; the message begins with the setting to blame.
    """
    workers = processes(hardware)
    wanted = configuration.overrides
    checkpointing = bool(wanted.get(f"{MODEL}.enable_gradient_checkpointing", True))
    if not uses_cuda(hardware):
        return Placement(workers, 1, 0.0, longest, hardware.gradient_checkpointing, None)
    gpu_gb = hardware.gpu_memory_gb or memory.ASSUMED_GPU_GB
    share = _number(wanted.get(f"{ROLLOUT}.gpu_memory_utilization")) or hardware.vllm_memory_utilization
    plan = memory.Plan(
        processes=workers,
        longest=longest,
        lora_rank=configuration.lora_rank,
        pass_tokens=longest,
        tensor_parallel=1,
        utilization=share or _UNKNOWN_MODEL[1],
        checkpointing=checkpointing,
        offload=bool(wanted.get(f"{ACTOR}.fsdp_config.param_offload", False)),
    )
    if model is not None and share is None:
        plan = replace(plan, utilization=memory.utilization(model, plan, gpu_gb))
    parallel = int(wanted.get(f"{ROLLOUT}.tensor_model_parallel_size", 0))
    if not parallel and model is not None:
        parallel = memory.tensor_parallel_size(model, workers, longest, plan.utilization * gpu_gb)
    plan = replace(plan, tensor_parallel=parallel or 1)
    _check_tensor_parallel(plan.tensor_parallel, workers, model)
    tokens = int(wanted.get(f"{ACTOR}.ppo_max_token_len_per_gpu", 0))
    if not tokens:
        tokens = memory.pass_tokens(model, plan, gpu_gb) if model else max(_UNKNOWN_MODEL[0], longest)
    if tokens < longest:
        raise ValueError(
            f"overrides.{ACTOR}.ppo_max_token_len_per_gpu: {tokens} is less than the longest prompt and response "
            f"together, {longest} tokens"
        )
    plan = replace(plan, pass_tokens=tokens)
    estimate = memory.estimate(model, plan, gpu_gb) if model else None
    return Placement(workers, plan.tensor_parallel, plan.utilization, tokens, checkpointing, estimate)


def _check_tensor_parallel(size: int, workers: Processes, model: ModelShape | None) -> None:
    key = f"overrides.{ROLLOUT}.tensor_model_parallel_size"
    if workers.on_each % size:
        raise ValueError(f"{key}: {size} does not divide the {workers.on_each} GPUs of a machine")
    if model is not None and model.heads % size:
        raise ValueError(f"{key}: {size} does not divide the model's {model.heads} attention heads")


def _number(value: Scalar | None) -> float | None:
    return None if value is None else float(value)
