"""Phases of one strategy after the other in this process, each until its modelled seconds are spent; kept on disk.

Phases with the same beginning, configuration and seed are run once, so that many strategies share their first ones.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.config import SearchConfig, load
from llmzero_hpc.store.atomic import make_folder, write_json
from llmzero_hpc.tasks.models import resolve_model
from llmzero_hpc.trainers.base import PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.lean import cost
from llmzero_hpc.trainers.lean.train import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Changes = dict[str, "bool | int | float | str"]
"""What differs from the configuration of the task's search.yaml."""
FOLDER = Path(__file__).parent
MOST_STEPS = 2000
LAST_STEPS = 8
"""Steps at the end of a phase over which metrics are averaged."""


@dataclass(frozen=True)
class Task:
    """A task of the benchmark: its search, and what one phase of a screened strategy may cost."""

    name: str
    phase_seconds: float

    @property
    def config(self) -> SearchConfig:
        return load(FOLDER / self.name / "search.yaml")


TASKS = {
    "two_lengths": Task("two_lengths", 5.0),
    "near_tie": Task("near_tie", 5.0),
    "trap": Task("trap", 5.0),
    "exploration": Task("exploration", 6.0),
}


def key(task: Task, seed: int, phases: Sequence[Changes]) -> str:
    """Of the last of these phases: everything that it follows from."""
    config = task.config
    told = [
        task.phase_seconds,
        resolve_model(config.model).name,
        config.task.model_dump(mode="json"),
        config.validation_max_response_length(config.configuration),
        seed,
        # epochs say nothing here, where seconds end a phase
        [config.configuration.changed(**changes, epochs=1.0).values() for changes in phases],
        [cost.STEP_SECONDS, cost.UNIT_SECONDS.named()],
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def run(work: Path, task: Task, seed: int, phases: Sequence[Changes]) -> list[dict[str, object]]:
    """What each phase of a strategy came to."""
    return [_phase(work, task, seed, phases[: number + 1]) for number in range(len(phases))]


def _phase(work: Path, task: Task, seed: int, phases: Sequence[Changes]) -> dict[str, object]:
    folder = work / task.name / key(task, seed, phases)
    kept = folder / "phase.json"
    if kept.is_file():
        return dict(json.loads(kept.read_bytes()))
    config, first, parent = task.config, 1, None
    if len(phases) > 1:
        before = work / task.name / key(task, seed, phases[:-1])
        last = int(json.loads((before / "phase.json").read_bytes())["last_step"])
        first, parent = last + 1, checkpoint_path(before / "checkpoints", last)
    configuration = config.configuration.changed(**phases[-1])
    spec = PhaseSpec(
        search="screening",
        node=len(phases) - 1,
        seed=seed,
        model=config.model,
        task=config.task,
        configuration=configuration,
        first_step=first,
        total_steps=MOST_STEPS,
        validate_every_steps=MOST_STEPS,
        validation_max_response_length=config.validation_max_response_length(configuration),
        parent_adapter=parent,
        checkpoints=folder / "checkpoints",
        training_state=folder / "training_state",
        hardware=config.hardware,
        rehearsal=config.rehearsal,
    )
    make_folder(spec.checkpoints)
    make_folder(spec.training_state)
    phase = Phase(spec, None)
    rows: list[Mapping[str, float]] = []
    spent = cpu = 0.0
    for step, prompts in enumerate(phase.batches(first), start=first):
        progress = phase.step(step, prompts)
        rows.append(progress.values)
        spent += progress.values["step_seconds"]
        cpu += progress.raw["cpu_seconds"]
        if spent >= task.phase_seconds:
            break
    values = phase.validated(phase.saved(progress), progress).values
    end = rows[-LAST_STEPS:]
    names = ("reward_mean", "response_length_mean", "response_clip_ratio", "zero_std_fraction", "entropy")
    result: dict[str, object] = {
        "changes": dict(phases[-1]),
        "steps": len(rows),
        "last_step": step,
        "modelled_seconds": spent,
        "cpu_seconds": cpu,
        "score": values["val_score"],
        "subtasks": {name: value for name, value in values.items() if name.startswith("val_score/")},
        **{name: sum(row[name] for row in end) / len(end) for name in names},
    }
    write_json(kept, result)
    return result
