"""Searches made up by hand: a finished one with every kind of node, and one in the middle of its work."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.report.collect import Pulse, collect
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import (
    Attempt,
    Checkpoint,
    CheckpointReference,
    Ending,
    Job,
    Node,
    NodeStatus,
    Rationale,
    StopDecision,
    TransitionKind,
)
from llmzero_hpc.search.tree import Evaluation, Tree
from llmzero_hpc.sections import Budget, ChainsTask

if TYPE_CHECKING:
    from llmzero_hpc.report.data import ReportData

CREATED_AT = 1_760_000_000.0
NOW = CREATED_AT + 1000.0
HOSTILE = "<script>alert('x')</script> & \"quotes\" [bold]markup[/bold]"

_START = Configuration(
    max_response_length=20,
    rollouts=8,
    learning_rate=1e-3,
    kl_coefficient=0.0,
    batch_size=16,
    mini_batches=2,
    epochs=0.2,
    lora_rank=8,
    lora_alpha=16,
)


def config(**values: object) -> SearchConfig:
    defaults: dict[str, object] = {
        "name": "chains-demo",
        "seed": 7,
        "trainer": "trl",
        "model": "builtin:chains",
        "task": ChainsTask(),
        "configuration": _START,
        "budget": Budget(iterations=8, device_hours=0.5),
    }
    return SearchConfig(**(defaults | values))  # type: ignore[arg-type]


def attempt(node: int, number: int = 1, seconds: float = 48.0, ending: Ending | None = Ending.COMPLETED) -> Attempt:
    name = f"lz-chains-demo-{node}-{number}"
    start = CREATED_AT + 60 * node
    return Attempt(
        number=number,
        name=name,
        intended_at=start,
        job=Job(str(4000 + node), name, start),
        started_at=start + 1,
        ended_at=None if ending is None else start + 1 + seconds,
        ending=ending,
        exit_code=0 if ending is Ending.COMPLETED else None,
        device_seconds=seconds,
    )


def phase_series(node: Node) -> Series:
    """Curves that rise to the node's checkpoints, with the metrics that a real trainer reports."""
    rows = []
    scores = {point.step: point.score for point in node.checkpoints}
    top = node.score or 0.3
    for step in range(node.first_step, (node.last_step or 0) + 1):
        wave = math.sin(step * 1.7 + node.id) * 0.03
        values = {
            "reward_mean": max(0.0, top * (1 - math.exp(-(step - node.first_step + 8) / 20)) + wave),
            "kl": 0.002 * step + abs(wave) / 10,
            "policy_loss": wave / 4,
            "clip_fraction": 0.02 + abs(wave) / 4,
            "grad_norm": 0.6 + 3 * abs(wave),
            "entropy": 0.9 * math.exp(-step / 120),
            "response_length_mean": 16.0 + step / 6 + 20 * wave,
            "response_clip_ratio": max(0.0, 0.6 - step / 200),
            "learning_rate": node.configuration.learning_rate if node.configuration else 0.0,
            "zero_std_fraction": max(0.05, 0.7 - step / 220 + wave),
            "step_seconds": 0.11 + step / 2000,
            "tokens_per_second": 5100.0 - step,
        }
        if step in scores:
            values["val_score"] = scores[step]
        rows.append(MetricRow(step, values))
    return Series(tuple(rows))


def _phase(
    node_id: int, kind: TransitionKind, parent: int | None, configuration: Configuration, steps: int, **values: object
) -> Node:
    resume = values.get("resume")
    first = resume.step + 1 if isinstance(resume, CheckpointReference) else 1
    node = Node(
        id=node_id,
        kind=kind,
        parent=parent,
        seed=node_id + 100,
        created_at=CREATED_AT + 60 * node_id,
        status=NodeStatus.COMPLETED,
        configuration=configuration,
        total_steps=steps,
        last_step=first + steps - 1,
        attempts=(attempt(node_id),),
    )
    return replace(node, **values)  # type: ignore[arg-type]


def _points(*pairs: tuple[int, float]) -> tuple[Checkpoint, ...]:
    return tuple(Checkpoint(step, score) for step, score in pairs)


def finished_tree() -> Tree:
    """0 > 1 > 5 is the best strategy; 2 failed, 4 repaired it; 3 stopped early; 6 is from scratch; 7 was cancelled."""
    second = _START.changed(max_response_length=64, learning_rate=5e-4, batch_size=8, kl_coefficient=1e-3)
    third = second.changed(max_response_length=52, learning_rate=3.5e-4, batch_size=4, mini_batches=1)
    hot = _START.changed(learning_rate=2e-2, temperature=1.3)
    nodes = (
        _phase(
            0, TransitionKind.SCRATCH, None, _START, 50,
            checkpoints=_points((10, 0.12), (20, 0.31), (30, 0.46), (40, 0.55), (50, 0.568)),
            rationale=Rationale("default", "Where the search starts."),
        ),
        _phase(
            1, TransitionKind.EVOLVE, 0, second, 40, resume=CheckpointReference(0, 50),
            checkpoints=_points((60, 0.61), (70, 0.66), (80, 0.711), (90, 0.70)),
            rationale=Rationale(
                "playbook", "73 % of the responses are cut off: the limit hides what the policy has learnt.",
                ("response_clip_ratio is 0.73 over the last 10 steps", "val_score rose by less than 0.02 since 40"),
                "truncation",
            ),
        ),
        _phase(
            2, TransitionKind.EVOLVE, 0, hot, 40, resume=CheckpointReference(0, 50), status=NodeStatus.FAILED,
            last_step=57, attempts=(attempt(2, 1, 9.0, Ending.ERROR),), problem="loss is not finite at step 58",
            rationale=Rationale("playbook", "Entropy has collapsed.", ("entropy fell to 0.1",), "entropy_collapse"),
            pruned=True,
        ),
        _phase(
            3, TransitionKind.EVOLVE, 1, second.changed(rollouts=16), 40, resume=CheckpointReference(1, 80),
            status=NodeStatus.EARLY_STOPPED, last_step=101, checkpoints=_points((90, 0.69), (100, 0.70)),
            stop=StopDecision(100, "0.04 below the best strategy and falling for three validations", "playbook", NOW),
            attempts=(attempt(3, 1, 4.0, Ending.PREEMPTED), attempt(3, 2, 21.5, Ending.STOPPED)),
            rationale=Rationale("playbook", "Half of the groups have no signal.", ("zero_std 0.52",), "variance"),
        ),
        _phase(
            4, TransitionKind.DEBUG, 0, hot.changed(learning_rate=1e-3), 40, repairs=2,
            resume=CheckpointReference(0, 50),
            checkpoints=_points((60, 0.58), (90, 0.64)),
            rationale=Rationale("playbook", "The learning rate was too high for this batch.", (), "diverged"),
        ),
        _phase(
            5, TransitionKind.EVOLVE, 1, third, 60, resume=CheckpointReference(1, 80),
            checkpoints=_points((90, 0.74), (100, 0.79), (110, 0.83), (120, 0.839), (130, 0.836), (140, 0.831)),
            rationale=Rationale(
                "playbook", "Plateau after the jump: smaller, more frequent updates.", ("val_score flat for 20 steps",),
                "plateau",
            ),
        ),
        _phase(
            6, TransitionKind.SCRATCH, 5, second, 50, checkpoints=_points((10, 0.05), (50, 0.336)),
            rationale=Rationale("playbook", "A fresh start with the longer limit.", (), "scratch"),
        ),
        _phase(
            7, TransitionKind.EVOLVE, 5, third.changed(temperature=0.8), 30, resume=CheckpointReference(5, 120),
            status=NodeStatus.CANCELLED, last_step=None, attempts=(attempt(7, 1, 2.0, Ending.STOPPED),),
            rationale=Rationale("someone", HOSTILE, (HOSTILE,), HOSTILE),
        ),
    )  # fmt: skip
    evaluation = Evaluation(
        CheckpointReference(5, 120), "test", (attempt(8, 1, 6.0),), 0.838, {"short": 0.93, "long": 0.746}
    )
    return Tree(nodes, evaluation)


def running_tree() -> Tree:
    """The finished one when phase 3 is in training and phase 4 in the queue."""
    nodes = list(finished_tree().nodes[:4])
    nodes[3] = replace(
        nodes[3], status=NodeStatus.RUNNING, stop=None, last_step=101, attempts=(attempt(3, 1, 20.0, None),)
    )
    nodes.append(
        replace(
            finished_tree().nodes[4], status=NodeStatus.PENDING, checkpoints=(), last_step=None,
            attempts=(attempt(4, 1, 0.0, None),),
        )
    )  # fmt: skip
    return Tree(tuple(nodes))


def data(
    tree: Tree, *, paused: bool = False, pulse_age: float | None = 3.0, error: str = "", **values: object
) -> ReportData:
    return collect(
        tree,
        config(**values),
        created_at=CREATED_AT,
        train_rows=4096,
        program_version="0.1.0",
        now=NOW,
        series={node.id: phase_series(node) for node in tree if node.last_step is not None},
        pulse=None if pulse_age is None else Pulse("login1", 4242, NOW - pulse_age, error),
        paused=paused,
    )


def finished(**values: object) -> ReportData:
    return data(finished_tree(), **values)  # type: ignore[arg-type]


def running(**values: object) -> ReportData:
    return data(running_tree(), **values)  # type: ignore[arg-type]


def large() -> ReportData:
    """Sixty phases, a long strategy, long words: what a page must hold."""
    some = finished_tree().nodes
    nodes = list(some)
    step, parent = 120, 5
    for number in range(8, 60):
        model = some[(1, 3, 4, 5, 6)[number % 5]]
        if number % 4 == 0:
            resume = CheckpointReference(parent, step)
            step += 10
            score = 0.84 + number / 1000
            nodes.append(
                replace(
                    some[5],
                    id=number,
                    parent=parent,
                    resume=resume,
                    last_step=step + 20,
                    checkpoints=_points((step, score)),
                    configuration=_START.changed(
                        max_response_length=32 + number,
                        learning_rate=1e-3 / number,
                        temperature=1.0 + number % 3 / 10,
                        overrides={"actor_rollout_ref.actor.optim.a_key_without_end": "word" * 20},
                    ),
                    rationale=Rationale("a-model", "unbreakable" * 30, ("evidence" * 40,), ""),
                )
            )
            parent = number
        else:
            nodes.append(replace(model, id=number, parent=number % 8, repairs=2 if model.repairs is not None else None))
    return data(Tree(tuple(nodes)))
