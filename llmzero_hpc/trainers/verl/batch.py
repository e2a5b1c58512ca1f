"""How VeRL divides a GRPO step: pure arithmetic, so that what cannot be divided is refused before a job is queued.

A step draws `batch_size` prompts and samples `rollouts` responses to each. VeRL spreads them over all processes
so that each has about as many tokens, and splits each process's share into mini-batches, one optimizer step each. It
counts mini-batches in prompts (`ppo_mini_batch_size`) and multiplies by the rollouts itself. Within a mini-batch the
gradients of several passes add up: passes of as many responses as fit into a number of tokens (dynamic batches, the
default on GPUs), or of a fixed number of responses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.sections import Hardware


@dataclass(frozen=True, slots=True)
class Processes:
    """The training processes of a phase: one on each GPU, or one on each machine without any."""

    machines: int
    on_each: int

    @property
    def total(self) -> int:
        """On all machines; over so many the weights and each batch are divided."""
        return self.machines * self.on_each


@dataclass(frozen=True, slots=True)
class StepShape:
    """How one GRPO step is divided.

    Attributes:
        prompts: of one step (`data.train_batch_size`).
        responses: to all of them.
        mini_batch_prompts: prompts of one optimizer step (`ppo_mini_batch_size`).
        updates: optimizer steps of one GRPO step, passes over its responses included.
        share: responses of one mini-batch on each process.
        micro_batch: responses of one pass on each process; None leaves that to dynamic batches.
    """

    prompts: int
    responses: int
    mini_batch_prompts: int
    updates: int
    share: int
    micro_batch: int | None


def uses_cuda(hardware: Hardware) -> bool:
    """Whether a phase trains on GPUs, by what is configured alone."""
    return hardware.device == "cuda" or (hardware.device == "auto" and hardware.gpus > 0)


def uses_bfloat16(hardware: Hardware) -> bool:
    """Whether weights and activations are bfloat16 where they are computed with."""
    return hardware.precision == "bfloat16" or (hardware.precision == "auto" and uses_cuda(hardware))


def processes(hardware: Hardware) -> Processes:
    """The processes of a phase.

    Raises:
        ValueError: its GPUs cannot be shared out evenly among its machines, or there are none where some are needed.
    """
    if not uses_cuda(hardware):
        return Processes(hardware.nodes, 1)
    if not hardware.gpus:
        raise ValueError("hardware.gpus: 0, but device is cuda")
    if hardware.gpus % hardware.nodes:
        raise ValueError(f"hardware.gpus: {hardware.gpus} cannot be shared out evenly among {hardware.nodes} machines")
    return Processes(hardware.nodes, hardware.gpus // hardware.nodes)


def step_shape(configuration: Configuration, hardware: Hardware) -> StepShape:
    """The division of a GRPO step.

    A fixed micro-batch is the largest that divides a process's share of a mini-batch and is not above
    `hardware.micro_batch_size`.

    Raises:
        ValueError: something cannot be divided evenly; the message has the figures.
    """
    workers = processes(hardware).total
    if configuration.batch_size % configuration.mini_batches:
        raise ValueError(
            f"mini_batches: {configuration.mini_batches} does not divide batch_size {configuration.batch_size}"
        )
    mini_batch_prompts = configuration.batch_size // configuration.mini_batches
    mini_batch = mini_batch_prompts * configuration.rollouts
    if mini_batch % workers:
        raise ValueError(
            f"batch_size: a mini-batch of {mini_batch} responses ({mini_batch_prompts} prompts x "
            f"{configuration.rollouts} rollouts) cannot be shared out evenly among {workers} processes"
        )
    share = mini_batch // workers
    limit = hardware.micro_batch_size
    if limit is None and not uses_cuda(hardware):
        limit = share
    micro_batch = None
    if limit is not None:
        micro_batch = next(size for size in range(min(share, limit), 0, -1) if share % size == 0)
    return StepShape(
        prompts=configuration.batch_size,
        responses=configuration.batch_size * configuration.rollouts,
        mini_batch_prompts=mini_batch_prompts,
        updates=configuration.mini_batches * int(configuration.overrides.get("actor_rollout_ref.actor.ppo_epochs", 1)),
        share=share,
        micro_batch=micro_batch,
    )
