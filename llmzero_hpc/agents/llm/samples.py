"""Made-up requests on which prompts are tried: `llmzero-hpc prompts check`, the documentation, the tests."""

from __future__ import annotations

import math
from dataclasses import replace

from llmzero_hpc.agents.base import FailureRequest, ProposalRequest, Sibling, StopRequest
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import (
    Attempt,
    Checkpoint,
    CheckpointReference,
    Ending,
    Node,
    NodeStatus,
    Rationale,
    StopDecision,
    TransitionKind,
)
from llmzero_hpc.search.strategy import StrategyPhase, concatenated

_EVERY = 10
_TRAIN_ROWS = 5000
_BOUNDS = {"max_response_length": Bounds(high=8192), "rollouts": Bounds(high=16)}
_START = Configuration()
_SECOND = _START.changed(learning_rate=1e-4, clip_range=0.3, advantage_normalization=True, temperature=0.9)
_THIRD = _SECOND.changed(kl_coefficient=5e-3)

_LOG = """\
Step 231 done in 41.8 s
Traceback (most recent call last):
  File "train.py", line 88, in update
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.31 GiB. GPU 0 has a total capacity of 39.49 GiB
"""


def proposal(kind: TransitionKind = TransitionKind.EVOLVE) -> ProposalRequest:
    """After a phase whose KL divergence jumped while responses grew and validation stood still."""
    first, second = _phase(0, _START, None, 100), _phase(1, _SECOND, CheckpointReference(0, 90), 90)
    series = {0: _healthy(first), 1: _drifting(second)}
    first, second = _scored(first, series[0]), _scored(second, series[1])
    phases = (StrategyPhase(first, 1, 90), StrategyPhase(second, 91, 180))
    scratch = kind is TransitionKind.SCRATCH
    stopped = _phase(3, _SECOND.changed(learning_rate=2e-4), CheckpointReference(1, 170), 60)
    lost = _phase(2, _START.changed(temperature=1.2, batch_size=64), None, 100)
    siblings = (
        Sibling(_stopped(lost, 40, 0.31, "0.2 below the best strategy at the same step, and flat"), None)
        if scratch
        else Sibling(_stopped(stopped, 200, 0.55, "validation fell from the first step on"), -0.07),
    )
    return ProposalRequest(
        kind=kind,
        parent=second,
        series=series[1],
        strategy=concatenated((phase, series[phase.node.id]) for phase in phases),
        checkpoints=() if scratch else second.checkpoints,
        siblings=siblings,
        best_score=second.score,
        bounds=_BOUNDS,
        train_rows=_TRAIN_ROWS,
        validate_every_steps=_EVERY,
        iterations_left=9,
        device_hours_left=412.0,
        strategy_hours_left=96.0,
        seed=7,
        phases=phases,
    )


def stop() -> StopRequest:
    """A phase that stays below the best strategy and has stopped gaining."""
    request = proposal()
    node = _phase(4, _THIRD, CheckpointReference(0, 90), 90)
    own = _healthy(node, start=0.5, top=0.53, seed=4).up_to(150)
    before = request.strategy.up_to(90)
    return StopRequest(
        node=node,
        series=own,
        strategy=Series(before.rows + own.rows),
        best=request.strategy,
        best_score=request.best_score or 0.0,
        last_step=180,
    )


def failure() -> FailureRequest:
    """A phase that ran out of memory, after one repair that did not help."""
    parent = proposal().parent
    larger = _THIRD.changed(max_response_length=8192, rollouts=16)
    ended = Attempt(1, "lz-sample-5-1", 0.0, started_at=60.0, ended_at=1560.0, ending=Ending.ERROR, exit_code=1)
    failed = Node(
        id=5,
        kind=TransitionKind.EVOLVE,
        parent=1,
        seed=5,
        created_at=0.0,
        status=NodeStatus.FAILED,
        resume=CheckpointReference(1, 180),
        configuration=larger,
        total_steps=90,
        last_step=231,
        attempts=(ended,),
        problem="CUDA out of memory",
    )
    tried = Node(
        id=6,
        kind=TransitionKind.DEBUG,
        parent=5,
        seed=6,
        created_at=0.0,
        status=NodeStatus.FAILED,
        repairs=5,
        resume=failed.resume,
        configuration=larger.changed(batch_size=64),
        problem="CUDA out of memory",
    )
    series = _drifting(failed).up_to(231)
    return FailureRequest(
        node=_scored(failed, series),
        exit_code=1,
        log_tail=_LOG,
        series=series,
        earlier=(tried,),
        bounds=_BOUNDS,
        resumed=parent,
    )


def _phase(node_id: int, configuration: Configuration, resume: CheckpointReference | None, steps: int) -> Node:
    first = 1 if resume is None else resume.step + 1
    return Node(
        id=node_id,
        kind=TransitionKind.SCRATCH if resume is None else TransitionKind.EVOLVE,
        parent=None if node_id == 0 else 0 if resume is None else resume.node,
        seed=node_id,
        created_at=0.0,
        status=NodeStatus.COMPLETED,
        resume=resume,
        configuration=configuration,
        total_steps=steps,
        rationale=Rationale("default", "Where the search starts.")
        if node_id == 0
        else Rationale("a-model", "Progress has slowed while entropy is high: larger updates, less noise."),
        last_step=first + steps - 1,
        attempts=(Attempt(1, f"lz-sample-{node_id}-1", 0.0, ending=Ending.COMPLETED, device_seconds=800.0 * steps),),
    )


def _scored(node: Node, series: Series) -> Node:
    return replace(node, checkpoints=tuple(Checkpoint(step, score) for step, score in series.points("val_score")))


def _stopped(node: Node, step: int, score: float, reason: str) -> Node:
    return replace(
        node,
        status=NodeStatus.EARLY_STOPPED,
        last_step=step,
        stop=StopDecision(step, reason, "a-model", 0.0),
        checkpoints=(Checkpoint(step, score),),
    )


def _noise(step: int, salt: int) -> float:
    """Between -1 and 1, scattered, the same on every machine."""
    mixed = (step * 0x9E3779B1 + salt * 0x85EBCA77) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) / 2**31 - 1


def _healthy(node: Node, start: float = 0.3, top: float = 0.62, seed: int = 0) -> Series:
    rows = []
    for index in range(1, (node.total_steps or 0) + 1):
        step = node.first_step + index - 1
        level = start + (top - start) * (1 - math.exp(-index / 40))
        rows.append(_row(node, step, index, level, seed, kl=0.0004 * step, length=1500 + step, entropy=0.62))
    return Series(tuple(rows))


def _drifting(node: Node) -> Series:
    rows = []
    for index in range(1, (node.total_steps or 0) + 1):
        step = node.first_step + index - 1
        late = max(0, index - 50)
        kl = 0.036 + 0.0004 * index + 0.5 * (1 - math.exp(-late / 8)) * (1 if late else 0)
        level = 0.59 + 0.05 * (1 - math.exp(-index / 25)) - 0.0006 * late
        rows.append(
            _row(node, step, index, level, 1, kl=kl, length=1600 + index + 16 * late, entropy=0.55 - 0.004 * late)
        )
    return Series(tuple(rows))


def _row(
    node: Node, step: int, index: int, level: float, seed: int, *, kl: float, length: float, entropy: float
) -> MetricRow:
    values = {
        "epoch": round(index * 128 / _TRAIN_ROWS, 4),
        "reward_mean": level + 0.02 + 0.03 * _noise(step, seed),
        "kl": kl * (1 + 0.1 * _noise(step, seed + 1)),
        "policy_loss": 0.002 * _noise(step, seed + 2),
        "clip_fraction": 0.004 + 0.001 * _noise(step, seed + 3),
        "grad_norm": 0.09 + 0.02 * _noise(step, seed + 4),
        "entropy": entropy - 0.0008 * step + 0.01 * _noise(step, seed + 5),
        "response_length_mean": length + 30 * _noise(step, seed + 6),
        "response_clip_ratio": max(0.0, 0.02 + 0.00005 * (length - 1500) + 0.005 * _noise(step, seed + 7)),
        "learning_rate": node.configuration.learning_rate if node.configuration else 0.0,
        "zero_std_fraction": 0.35 + 0.05 * _noise(step, seed + 8),
        "step_seconds": 41.0 + 2 * _noise(step, seed + 9),
        "tokens_per_second": 38_000 + 500 * _noise(step, seed + 10),
    }
    if index % _EVERY == 0 or index == node.total_steps:
        values["val_score"] = round(level + 0.008 * _noise(step, seed + 11), 3)
    return MetricRow(step, values)
