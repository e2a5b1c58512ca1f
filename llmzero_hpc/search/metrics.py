"""Canonical training metrics: their names, one row of them, and the series of a phase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

STEP_METRICS: Mapping[str, str] = {
    "epoch": "passes over the training rows since the phase began",
    "reward_mean": "mean reward of the rollouts of this step",
    "val_score": "validation score, greedy decoding; the only metric that selects",
    "kl": "KL divergence of the policy from the base model, per token (k3 estimator)",
    "policy_loss": "clipped surrogate loss of GRPO",
    "clip_fraction": "share of tokens whose policy ratio was clipped",
    "grad_norm": "norm of the gradient before clipping",
    "entropy": "mean entropy of the next-token distribution, nats",
    "response_length_mean": "mean response length, tokens",
    "response_clip_ratio": "share of responses cut off at max_response_length",
    "learning_rate": "learning rate in force",
    "zero_std_fraction": "share of prompts whose rollouts all earned the same reward: no gradient from them",
    "step_seconds": "wall time of the step, validation excluded, seconds",
    "tokens_per_second": "generated tokens a second",
}
"""Every canonical metric and its meaning; a trainer reports those it has. `val_score/<subtask>` comes on top."""

VALIDATION_SCORE = "val_score"


@dataclass(frozen=True, slots=True)
class MetricRow:
    """What a trainer reported for one step.

    `step` is numbered along the strategy, so a phase starts after the checkpoint that it resumes from.
    `values` holds canonical names only; what the trainer calls them stays in `raw` of the metrics file.
    A row with `val_score` is written after the checkpoint of that step is complete.
    """

    step: int
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def validation_score(self) -> float | None:
        """The validation score where this step was validated; a value that is not finite counts as none."""
        score = self.values.get(VALIDATION_SCORE)
        return score if score is not None and math.isfinite(score) else None


@dataclass(frozen=True, slots=True)
class Series:
    """The rows of a phase or of a strategy, by ascending step."""

    rows: tuple[MetricRow, ...] = ()

    def points(self, name: str) -> tuple[tuple[int, float], ...]:
        """(step, value) of one metric, where it was reported and is finite."""
        return tuple(
            (row.step, row.values[name]) for row in self.rows if name in row.values and math.isfinite(row.values[name])
        )

    def up_to(self, step: int) -> Series:
        """The rows until `step`, inclusive."""
        return Series(tuple(row for row in self.rows if row.step <= step))

    def names(self) -> tuple[str, ...]:
        """Metric names that occur, canonical order first, then subtasks by name."""
        present = {name for row in self.rows for name in row.values}
        return tuple(n for n in STEP_METRICS if n in present) + tuple(sorted(present - STEP_METRICS.keys()))

    @staticmethod
    def continued(rows: Iterable[MetricRow]) -> Series:
        """What counts of a phase's rows, given run after run of the phase, whenever they were written.

        A run takes up where it resumed: what an earlier one did from there on is void.
        """
        kept: list[MetricRow] = []
        for row in rows:
            while kept and kept[-1].step >= row.step:
                kept.pop()
            kept.append(row)
        return Series(tuple(kept))
