"""The reward that VeRL calls: the task's own, on the very row that was asked.

VeRL's rows carry no more than their split and number; everything else is read from the task, so that no type is lost on
the way through a parquet file. VeRL logs what a reward raises and trains on without the response. So a mistake is kept
(`Layout.mistake`), for the phase to end with it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.sections import TaskConfig
from llmzero_hpc.store.atomic import write_bytes
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.registry import load_task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmzero_hpc.tasks.base import Task


def compute_score(
    data_source: str,  # noqa: ARG001 - VeRL's signature
    solution_str: str,
    ground_truth: str,  # noqa: ARG001
    extra_info: Mapping[str, Any],
    *,
    task: str,
    **_: Any,
) -> dict[str, float]:
    """Score of a response: `score` and `acc`, which is what VeRL's validation reports, and whether it was cut off.

    Args:
        data_source: as in the row; unused, as is the next but one.
        solution_str: the response, without special tokens.
        ground_truth: as in the row.
        extra_info: `split` and `index` of the row, and `truncated`.
        task: path of `Layout.task`.

    Raises:
        LLMZeroError: the user's reward raised, or returned no number; kept beside `task` as well.
    """
    file = Path(task)
    truncated = bool(extra_info.get("truncated", False))
    try:
        loaded = _task(file)
        row = loaded.rows(Split(extra_info["split"]))[int(extra_info["index"])]
        score = loaded.reward(row, solution_str, truncated=truncated)
    except LLMZeroError as error:
        write_bytes(file.with_name("mistake.txt"), f"{error.message}\n{error.next_step}".encode())
        raise
    return {"score": score, "acc": score, "truncated": float(truncated)}


@cache
def _task(file: Path) -> Task:
    return load_task(TypeAdapter[Any](TaskConfig).validate_python(json.loads(file.read_bytes())))
