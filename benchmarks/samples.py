"""Searches of any size to measure on: the shape of real ones, grown in linear time, always the same."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.search.configuration import Configuration
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
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.rehearsal.simulation import CHAINS, initial_policy, train_step

if TYPE_CHECKING:
    from pathlib import Path

CREATED_AT = 1_700_000_000.0
TRAIN_ROWS = 4096
STEPS = 100
"""Steps of a phase."""
EVERY = 20
"""Steps between validations: five checkpoints a phase."""
_PLACES = 2
_PHASE_SECONDS = 5400.0

_DIAGNOSIS = (
    "The validation score rose until step {step} and has been flat since, while the share of responses that reach the"
    " limit grew to a third: the policy needs room rather than longer training. The limit is doubled, and the learning"
    " rate lowered to keep the KL divergence where it is."
)


def tree_of(size: int) -> Tree:
    """A tree of settled phases: a quarter from scratch, a tenth stopped early, a twentieth failed and then repaired."""
    luck = random.Random(size)
    nodes: list[Node] = []
    free: list[tuple[int, int]] = []
    """Scored phases with the places left under them."""
    while len(nodes) < size:
        number = len(nodes)
        if number % 4 == 0:
            node = _settled(number, TransitionKind.SCRATCH, None, luck)
            node = replace(node, parent=None if number == 0 else max(nodes, key=_score).id if number < 6 else 0)
        else:
            # Search goes on where it went well, mostly with what is new.
            place = len(free) - 1 - min(len(free) - 1, int(luck.expovariate(0.2)))
            parent, left = free.pop(place)
            if left > 1:
                free.insert(place, (parent, left - 1))
            node = _settled(number, TransitionKind.EVOLVE, nodes[parent], luck)
        if number % 20 == 18 and number + 1 < size:
            nodes.append(replace(node, status=NodeStatus.FAILED, checkpoints=(), problem="the trainer exited with 1"))
            repair = _settled(number + 1, TransitionKind.DEBUG, None, luck)
            node = replace(repair, parent=node.parent, repairs=number, resume=node.resume)
            nodes[number] = replace(nodes[number], pruned=True)
        elif number % 10 == 7:
            node = replace(node, status=NodeStatus.EARLY_STOPPED, stop=_stopped(node), checkpoints=node.checkpoints[:3])
        nodes.append(node)
        free.append((node.id, _PLACES))
    return Tree(tuple(nodes))


def _settled(number: int, kind: TransitionKind, parent: Node | None, luck: random.Random) -> Node:
    origin = parent.configuration if parent is not None and parent.configuration is not None else Configuration()
    best = parent.best if parent is not None else None
    start = 0 if best is None else best.step
    score = 0.2 if best is None else best.score
    first = luck.uniform(-0.02, 0.04)
    began = CREATED_AT + number * _PHASE_SECONDS
    name = f"lz-bench-0000-{number:04d}-1"
    step = start + STEPS
    return Node(
        id=number,
        kind=kind,
        parent=None if parent is None else parent.id,
        seed=luck.randrange(2**31),
        created_at=began,
        status=NodeStatus.COMPLETED,
        resume=None if parent is None or best is None else CheckpointReference(parent.id, best.step),
        configuration=origin.changed(
            learning_rate=origin.learning_rate * luck.choice((0.5, 1.0, 1.5)),
            max_response_length=min(16384, origin.max_response_length + luck.choice((0, 512))),
        ),
        total_steps=STEPS,
        rationale=Rationale(
            "playbook", _DIAGNOSIS.format(step=step - EVERY), ("val_score 0.41 to 0.43", "clip ratio 0.33"), "more_room"
        ),
        attempts=(
            Attempt(
                number=1,
                name=name,
                intended_at=began,
                job=Job(str(100_000 + number), name, began + 1.25),
                started_at=began + 60.5,
                ended_at=began + _PHASE_SECONDS,
                ending=Ending.COMPLETED,
                exit_code=0,
                device_seconds=8 * (_PHASE_SECONDS - 60.5),
                resumed_step=start,
            ),
        ),
        checkpoints=tuple(
            Checkpoint(at, min(0.99, score + first + luck.uniform(0.0, 0.03) * place))
            for place, at in enumerate(range(start + EVERY, step + 1, EVERY))
        ),
        last_step=step,
    )


def _stopped(node: Node) -> StopDecision:
    return StopDecision(node.checkpoints[2].step, "no gain in the last third", "playbook", node.created_at + 3000)


def _score(node: Node) -> float:
    return -1.0 if node.score is None else node.score


def started(size: int, parallel: int) -> Tree:
    """A tree of `size` settled phases, and `parallel` more from scratch that are to be submitted."""
    tree = tree_of(size)
    for number in range(size, size + parallel):
        node = _settled(number, TransitionKind.SCRATCH, None, random.Random(number))
        proposed = replace(node, parent=0, status=NodeStatus.PROPOSED, attempts=(), checkpoints=(), last_step=None)
        tree = tree.adding(proposed)
    return tree


def running(size: int, parallel: int) -> Tree:
    """A tree of `size` settled phases, and `parallel` more that run and are half done."""
    tree = started(size, parallel)
    for node in tree.active():
        whole = _settled(node.id, TransitionKind.SCRATCH, None, random.Random(node.id))
        attempt = replace(whole.attempts[0], ended_at=None, ending=None, exit_code=None)
        half = replace(
            node,
            status=NodeStatus.RUNNING,
            attempts=(attempt,),
            checkpoints=whole.checkpoints[: len(whole.checkpoints) // 2],
            last_step=STEPS // 2,
        )
        tree = tree.replacing(half)
    return tree


def search_of(root: Path, tree: Tree, **changes: object) -> SearchDirectory:
    """A search on disk that stands as `tree` says, without the files of its phases."""
    settings: dict[str, object] = {
        "name": "bench",
        "trainer": "rehearsal",
        "model": "builtin:chains",
        "task": {"name": "chains"},
        "validate_every_steps": EVERY,
        "max_parallel_phases": 8,
        "budget": {"iterations": 20_000},
    }
    config = SearchConfig.model_validate(settings | changes)
    directory = SearchDirectory.create(root, SearchRecord.new(config, TRAIN_ROWS, CREATED_AT))
    directory.write_tree(tree)
    return directory


def write_phase_files(directory: SearchDirectory, node: Node) -> None:
    """What a phase leaves that people look at: the metrics of each step, and folders of its checkpoints."""
    folder = directory.phase(node.id)
    folder.create()
    for attempt in node.attempts:
        files = folder.attempt(attempt.number)
        files.create()
        writer = MetricsWriter(files.metrics, attempt.number, 0)
        scores = {point.step: point.score for point in node.checkpoints}
        policy, configuration = initial_policy(node.seed), node.configuration or Configuration()
        for step in range(node.first_step, (node.last_step or 0) + 1):
            policy, seen = train_step(policy, configuration, CHAINS, seed=node.seed, step=step)
            values = {
                "reward_mean": seen.reward_mean,
                "kl": policy.drift,
                "entropy": policy.entropy,
                "grad_norm": seen.grad_norm,
                "clip_fraction": seen.clip_fraction,
                "response_length_mean": seen.response_length_mean,
                "response_clip_ratio": seen.response_clip_ratio,
                "zero_std_fraction": seen.zero_std_fraction,
                "learning_rate": configuration.learning_rate,
                "step_seconds": 54.0,
            }
            if step in scores:
                values["val_score"] = scores[step]
                checkpoint_path(folder.checkpoints, step).mkdir(parents=True, exist_ok=True)
            writer.write(step, values)
