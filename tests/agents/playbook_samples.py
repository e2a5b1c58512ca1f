"""Synthetic phases and requests for the tests of the playbook."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmzero_hpc.agents.base import FailureRequest, ProposalRequest, Sibling, StopRequest
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import Checkpoint, CheckpointReference, Node, NodeStatus, TransitionKind

STEPS = 60
EVERY = 5
Curve = Callable[[float], float]
"""A metric as a function of the share of the phase that is done, from just above 0 to 1."""

HEALTHY: Mapping[str, Curve] = {
    "val_score": lambda t: 0.2 + 0.4 * t,
    "reward_mean": lambda t: 0.25 + 0.4 * t,
    "kl": lambda t: 0.03 * t,
    "entropy": lambda t: 0.8 - 0.2 * t,
    "grad_norm": lambda t: 0.3 - 0.05 * t,
    "clip_fraction": lambda t: 0.02,
    "response_length_mean": lambda t: 500 + 50 * t,
    "response_clip_ratio": lambda t: 0.03,
    "zero_std_fraction": lambda t: 0.3,
}


def _flat(level: float) -> Curve:
    return lambda t: level


SICK: Mapping[str, Mapping[str, Curve]] = {
    "collapse": {
        "val_score": lambda t: 0.2 + 0.8 * t if t < 0.5 else 0.0,
        "reward_mean": lambda t: 0.2 + 0.8 * t if t < 0.5 else 0.01,
    },
    "kl_spike": {"kl": lambda t: 0.004 if t < 0.75 else 0.07, "val_score": _flat(0.4)},
    "entropy_collapse": {"entropy": lambda t: 0.8 if t < 0.5 else 0.05, "val_score": lambda t: 0.4 + 0.005 * t},
    "overfit": {"val_score": lambda t: 0.3 + 0.4 * t if t < 0.5 else 0.7 - 0.4 * t},
    "truncation": {"response_clip_ratio": _flat(0.4)},
    "no_reward_variance": {"zero_std_fraction": _flat(0.95), "val_score": _flat(0.1), "reward_mean": _flat(0.05)},
    "vanishing_gradient": {"grad_norm": lambda t: 0.3 if t < 0.3 else 0.0005, "val_score": _flat(0.4)},
    "plateau": {"val_score": _flat(0.4), "reward_mean": _flat(0.4)},
    "slowing": {"val_score": lambda t: 0.6 - 0.4 * (1 - t) ** 4},
    "progress": {},
}
"""What differs from `HEALTHY`, by the rule that must lead."""


def phase(curves: Mapping[str, Curve] | None = None, first_step: int = 1) -> Series:
    """A phase of `STEPS` steps, validated every `EVERY`, healthy but for `curves`."""
    merged = {**HEALTHY, **(curves or {})}
    return Series(
        tuple(
            MetricRow(
                first_step + i - 1,
                {name: curve(i / STEPS) for name, curve in merged.items() if name != "val_score" or i % EVERY == 0},
            )
            for i in range(1, STEPS + 1)
        )
    )


def checkpoints(series: Series) -> tuple[Checkpoint, ...]:
    return tuple(Checkpoint(step, score) for step, score in series.points("val_score"))


def node(
    id: int = 0,  # noqa: A002 - the field's name
    configuration: Configuration | None = None,
    series: Series | None = None,
    kind: TransitionKind = TransitionKind.EVOLVE,
    **fields: object,
) -> Node:
    values: dict[str, object] = {
        "id": id, "kind": kind, "parent": None if id == 0 else 0, "seed": id, "created_at": 0.0,
        "status": NodeStatus.COMPLETED, "configuration": configuration or Configuration(), "total_steps": STEPS,
        "checkpoints": checkpoints(series) if series else (),
    }  # fmt: skip
    return Node(**{**values, **fields})  # type: ignore[arg-type]


def proposal_request(
    series: Series,
    *,
    kind: TransitionKind = TransitionKind.EVOLVE,
    configuration: Configuration | None = None,
    siblings: tuple[Sibling, ...] = (),
    bounds: Mapping[str, Bounds] | None = None,
    strategy: Series | None = None,
    seed: int = 7,
    train_rows: int = 4096,
) -> ProposalRequest:
    parent = node(0, configuration, series, TransitionKind.SCRATCH)
    return ProposalRequest(
        kind=kind, parent=parent, series=series, strategy=strategy or series,
        checkpoints=() if kind is TransitionKind.SCRATCH else parent.checkpoints,
        siblings=siblings, best_score=parent.score, bounds=bounds or {}, train_rows=train_rows,
        validate_every_steps=EVERY, iterations_left=8, seed=seed,
    )  # fmt: skip


def validations(scores: list[float], every: int = 10, first_step: int = 1) -> Series:
    return Series(tuple(MetricRow(first_step - 1 + every * (i + 1), {"val_score": s}) for i, s in enumerate(scores)))


def stop_request(
    scores: list[float],
    best: list[float],
    last_step: int = 100,
    best_score: float | None = None,
    series: Series | None = None,
) -> StopRequest:
    own = series or validations(scores)
    return StopRequest(
        node=node(3, kind=TransitionKind.SCRATCH, status=NodeStatus.RUNNING), series=own, strategy=own,
        best=validations(best), best_score=max(best) if best_score is None else best_score, last_step=last_step,
    )  # fmt: skip


def failure_request(
    log_tail: str,
    *,
    configuration: Configuration | None = None,
    exit_code: int | None = 1,
    earlier: tuple[Node, ...] = (),
    series: Series | None = None,
    bounds: Mapping[str, Bounds] | None = None,
) -> FailureRequest:
    rows = series or Series()
    failed = node(2, configuration, rows, status=NodeStatus.FAILED, resume=CheckpointReference(0, 30), parent=0)
    return FailureRequest(failed, exit_code, log_tail, rows, earlier, bounds or {})
