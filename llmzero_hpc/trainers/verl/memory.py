"""GPU memory of a phase, estimated: what must fit while it trains, and while it generates. GB are 2^30 bytes.

Training and generation take turns on the same GPUs. While it trains, vLLM sleeps and gives its memory back; while it
generates, the shards of weights and optimizer stay. Figures are those of VeRL 0.9.1 with FSDP2: weights in float32,
sharded over all GPUs; computation in bfloat16; the adapter with its gradient and AdamW's two moments in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from llmzero_hpc.trainers.verl.batch import Processes

if TYPE_CHECKING:
    from llmzero_hpc.trainers.verl.model_shape import ModelShape

ASSUMED_GPU_GB: Final = 40.0
"""What defaults are chosen for where `hardware.gpu_memory_gb` is not given; then nothing is refused for its memory."""

_GB: Final = 2**30
_USABLE: Final = 0.92
"""Share of a GPU that may be planned with: the driver, NCCL and fragmentation take the rest."""
_SLEEPING_GB: Final = 2.0
"""What vLLM keeps while it sleeps: its process's context and CUDA graphs."""
_ENGINE_GB: Final = 1.5
"""What vLLM needs beside weights and cache: activations of a prefill, CUDA graphs."""
_LOGIT_BYTES: Final = 8
"""For each logit of a pass: the logit and its gradient in bfloat16, and one copy in float32."""
_LONGEST_PASS: Final = 16_384
"""Tokens of one pass beyond which a GPU gains nothing; VeRL's default."""
_GRAIN: Final = 1024
_TENSOR_PARALLEL: Final = (1, 2, 4, 8)
_WEIGHTS_SHARE: Final = 0.6
"""Of vLLM's memory: with more of it taken by weights, too little is left for the cache of many responses."""
_SEQUENCES: Final = 4
"""Longest sequences that vLLM's cache should hold at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides how much memory a phase takes, beside the model.

    Attributes:
        processes: the GPUs.
        longest: tokens of the longest prompt and the longest response together.
        lora_rank: of the adapter.
        pass_tokens: of one forward and backward pass on each GPU.
        tensor_parallel: GPUs that share one copy of vLLM's weights.
        utilization: share of GPU memory that vLLM may take, while it generates.
        checkpointing: activations inside of layers are computed again in the backward pass.
        offload: weights and optimizer go to the machine's memory while they are not used.
    """

    processes: Processes
    longest: int
    lora_rank: int
    pass_tokens: int
    tensor_parallel: int
    utilization: float
    checkpointing: bool = True
    offload: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """GB on each GPU, by what takes them."""

    training: dict[str, float]
    generation: dict[str, float]
    cached_sequences: float
    """Longest sequences that fit into vLLM's cache at once."""

    def problem(self, gpu_gb: float) -> str:
        """Why this does not fit into GPUs of so many GB, with the figures; empty when it does."""
        limit = gpu_gb * _USABLE
        for name, parts in (("training", self.training), ("generation", self.generation)):
            if sum(parts.values()) > limit:
                return f"{name} needs about {_listed(parts)} on each GPU, of {limit:.1f} GB that can be used"
        if self.cached_sequences < 1:
            return (
                f"vLLM cannot hold one sequence of the longest length: its cache of {self.generation['cache']:.1f} GB "
                f"takes {self.cached_sequences:.2f} of one"
            )
        return ""


def estimate(model: ModelShape, plan: Plan, gpu_gb: float) -> Estimate:
    """What a plan takes of GPUs with so many GB."""
    shards = {
        "weights": 4 * model.parameters / plan.processes.total / _GB,
        "adapter": 16 * model.adapter_parameters(plan.lora_rank) / plan.processes.total / _GB,
    }
    kept = plan.pass_tokens * model.layers * model.width * 2
    inside = plan.pass_tokens * 2 * (10 * model.width + 4 * model.feed_forward)
    training = shards | {
        "gathered weights": 2 * (model.embedding_parameters + 2 * model.layer_parameters) / _GB,
        "activations": (kept + inside * (1 if plan.checkpointing else model.layers)) / _GB,
        "logits": _LOGIT_BYTES * plan.pass_tokens * model.vocabulary / _GB,
        "vLLM asleep": _SLEEPING_GB,
    }
    weights = 2 * model.parameters / plan.tensor_parallel / _GB
    cache = plan.utilization * gpu_gb - weights - _ENGINE_GB
    generation = {} if plan.offload else dict(shards)
    generation |= {"vLLM's weights": weights, "vLLM itself": _ENGINE_GB, "cache": max(0.0, cache)}
    per_sequence = plan.longest * model.cache_bytes(plan.tensor_parallel) / _GB
    return Estimate(training, generation, max(0.0, cache) / per_sequence)


def tensor_parallel_size(model: ModelShape, processes: Processes, longest: int, share_gb: float) -> int:
    """The fewest GPUs for one copy of vLLM's weights that leave its cache room, within `share_gb` on each.

    They are on one machine, and divide the model's heads. Without enough room anywhere it is the most there can be.
    """
    possible = [size for size in _TENSOR_PARALLEL if processes.on_each % size == 0 and model.heads % size == 0]
    for size in possible:
        weights = 2 * model.parameters / size / _GB
        cache = share_gb - weights - _ENGINE_GB
        needed = _SEQUENCES * longest * model.cache_bytes(size) / _GB
        if weights <= _WEIGHTS_SHARE * share_gb and cache >= needed:
            return size
    return possible[-1]


def utilization(model: ModelShape, plan: Plan, gpu_gb: float) -> float:
    """Share of GPU memory for vLLM: what training leaves, in steps of 0.05, between 0.3 and 0.7."""
    resident = (
        0.0 if plan.offload else sum(estimate(model, plan, gpu_gb).training[key] for key in ("weights", "adapter"))
    )
    free = (gpu_gb * _USABLE - resident - 1.0) / gpu_gb
    return min(0.7, max(0.3, int(free * 20) / 20))


def pass_tokens(model: ModelShape, plan: Plan, gpu_gb: float) -> int:
    """Tokens of one pass: as many as fit, at least the longest sequence and at most 16384 or that."""
    tokens = max(_LONGEST_PASS, plan.longest)
    while tokens > plan.longest:
        if sum(estimate(model, replace(plan, pass_tokens=tokens), gpu_gb).training.values()) <= gpu_gb * _USABLE:
            break
        tokens = max(plan.longest, tokens - _GRAIN)
    return tokens


def _listed(parts: dict[str, float]) -> str:
    listed = ", ".join(f"{name} {size:.1f}" for name, size in parts.items())
    return f"{sum(parts.values()):.1f} GB ({listed})"
