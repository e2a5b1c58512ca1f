"""What is random in a phase: all of it follows from the search's seed, the node and the step."""

from __future__ import annotations

import hashlib
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmzero_hpc.trainers.base import PhaseSpec


def step_seed(seed: int, node: int, step: int) -> int:
    """The seed of everything random in one step, so that a continued phase needs no random state from before."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{node}/{step}".encode()).digest()[:4]) >> 1


def row_order(spec: PhaseSpec, rows: int, skipped: int) -> list[int]:
    """Numbers of the training rows of all steps of a phase but the first `skipped`, in the order of training.

    Each epoch is a permutation of its own; rows that do not fill a batch at its end are left out of it.

    Raises:
        ValueError: there are fewer rows than one batch takes.
    """
    size = spec.configuration.batch_size
    per_epoch = rows // size
    if not per_epoch:
        raise ValueError(f"batch_size: {size} prompts, but there are only {rows} training rows")
    order: list[int] = []
    for epoch in range(-(-spec.total_steps // per_epoch)):
        permutation = list(range(rows))
        Random(step_seed(spec.seed, spec.node, -1 - epoch)).shuffle(permutation)  # noqa: S311 - must repeat
        order.extend(permutation[: per_epoch * size])
    return order[skipped * size : spec.total_steps * size]
