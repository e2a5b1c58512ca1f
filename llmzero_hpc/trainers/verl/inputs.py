"""What VeRL reads in a run: rows as parquet, the agent loops with their limits, and the task for the reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from pydantic import TypeAdapter

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.sections import TaskConfig
from llmzero_hpc.store.atomic import make_folder, refusals, write_bytes, write_json
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.verl.rendering import TRAINING_LOOP, VALIDATION_LOOP
from llmzero_hpc.trainers.verl.tokens import TEXT_ROLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmzero_hpc.tasks.base import Row
    from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec
    from llmzero_hpc.trainers.verl.layout import Layout

_LOOP = "llmzero_hpc.trainers.verl.agent_loop.SingleResponse"


def write_phase_inputs(spec: PhaseSpec, place: Layout) -> None:
    """Write everything that `rendering.rendered` names for a phase.

    Raises:
        ConfigurationError: the task's rows cannot be read, or there are fewer than one batch takes.
        StorageError: the file system refused.
    """
    task = load_task(spec.task)
    rows = task.rows(Split.TRAIN)
    if len(rows) < spec.configuration.batch_size:
        raise ConfigurationError(
            f"batch_size: {spec.configuration.batch_size} prompts, but there are only {len(rows)} training rows"
        )
    make_folder(place.folder)
    write_rows(place.train_rows, Split.TRAIN, rows, TRAINING_LOOP)
    write_rows(place.validation_rows, Split.VALIDATION, task.rows(Split.VALIDATION), VALIDATION_LOOP)
    _write_shared(spec.task, place, spec.configuration.max_response_length, spec.validation_max_response_length)


def write_evaluation_inputs(spec: EvaluationSpec, place: Layout) -> None:
    """Write everything that `rendering.rendered_evaluation` names.

    Raises:
        ConfigurationError: the task's rows cannot be read.
        StorageError: the file system refused.
    """
    make_folder(place.folder)
    write_rows(place.validation_rows, spec.split, load_task(spec.task).rows(spec.split), VALIDATION_LOOP)
    _write_shared(spec.task, place, spec.max_response_length, spec.max_response_length)


def write_rows(path: Path, split: Split, rows: Sequence[Row], loop: str) -> None:
    """Rows in VeRL's shape, in their order; `loop` is the agent loop that answers them."""
    import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
    from pyarrow import parquet

    table = pa.Table.from_pylist([_row(split, number, row, loop) for number, row in enumerate(rows)])
    with refusals("writing", path):
        parquet.write_table(table, path)


def _row(split: Split, number: int, row: Row, loop: str) -> dict[str, Any]:
    messages = [{"role": TEXT_ROLE, "content": row.prompt}] if isinstance(row.prompt, str) else row.prompt
    return {
        "data_source": row.data_source,
        "prompt": [{"role": message["role"], "content": message["content"]} for message in messages],
        "ability": row.data_source,
        "reward_model": {"style": "rule", "ground_truth": row.ground_truth},
        "extra_info": {"split": split.value, "index": number},
        "agent_name": loop,
    }


def _write_shared(task: TaskConfig, place: Layout, limit: int, validation_limit: int) -> None:
    loops = [
        {"name": name, "_target_": _LOOP, "limit": tokens}
        for name, tokens in ((TRAINING_LOOP, limit), (VALIDATION_LOOP, validation_limit))
    ]
    write_bytes(place.agent_loops, yaml.safe_dump(loops, sort_keys=False).encode())
    write_json(place.task, TypeAdapter[Any](TaskConfig).dump_python(task, mode="json"))
