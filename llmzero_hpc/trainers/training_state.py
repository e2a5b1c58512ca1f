"""What a phase needs to continue itself after a kill: adapter, optimizer, and the metrics row that was due.

No random state is kept: everything random in a step is seeded from the step's number (`steps.step_seed`).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from llmzero_hpc.store.atomic import write_json
from llmzero_hpc.trainers.checkpoints import is_adapter, saved_steps

if TYPE_CHECKING:
    from pathlib import Path

_PROGRESS: Final = "progress.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """The step after which a state was saved, and its metrics row; `validated` says that the row is complete."""

    step: int
    values: dict[str, float]
    raw: dict[str, float]
    validated: bool


def newest_state(training_state: Path) -> tuple[Path, Progress] | None:
    """The folder and the progress of the newest state; None where there is none yet."""
    for step in reversed(saved_steps(training_state)):
        folder = training_state / f"step_{step}"
        try:
            progress = Progress(**json.loads((folder / _PROGRESS).read_bytes()))
        except (OSError, ValueError, TypeError):
            continue
        if progress.step == step and is_adapter(folder):
            return folder, progress
    return None


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace the progress of a state.

    Raises:
        StorageError: the file system refused.
    """
    write_json(folder / _PROGRESS, asdict(progress))


def drop_older(training_state: Path, step: int) -> None:
    """Remove all states but that of `step`; a newer one cannot be told from a broken one any more."""
    for other in saved_steps(training_state):
        if other != step:
            shutil.rmtree(training_state / f"step_{other}", ignore_errors=True)
