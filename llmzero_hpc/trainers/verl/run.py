"""`python -m llmzero_hpc.trainers.verl.run <config.yaml> <attempt_directory>`: train a phase, or the rest of it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.errors import ConfigurationError, LLMZeroError
from llmzero_hpc.store.atomic import make_folder, read_bytes, remove
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.phase_directory import AttemptDirectory, PhaseDirectory
from llmzero_hpc.trainers.specification import read_phase
from llmzero_hpc.trainers.verl.child import Child, Stopped
from llmzero_hpc.trainers.verl.errors import failed_run
from llmzero_hpc.trainers.verl.hydra_text import assignment
from llmzero_hpc.trainers.verl.inputs import write_phase_inputs
from llmzero_hpc.trainers.verl.layout import Layout
from llmzero_hpc.trainers.verl.mirror import Mirror
from llmzero_hpc.trainers.verl.rendering import rendered
from llmzero_hpc.trainers.verl.state import take_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.trainers.base import PhaseSpec

STOPPED_EXIT_CODE = 128 + int(signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. What is wrong is one line on stderr, after what VeRL said."""
    specification, attempt = Path(arguments[0]), AttemptDirectory(Path(arguments[1]))
    return reported(lambda: train(read_phase(specification), attempt))


def reported(action: Callable[[], None]) -> int:
    """The exit code of an action, after its error has been told on stderr: the proofs, what it is, what can be done."""
    try:
        action()
    except Stopped:
        return STOPPED_EXIT_CODE
    except LLMZeroError as error:
        lines = (*getattr(error, "__notes__", ()), f"error: {error.message}", error.next_step)
        print(*lines, sep="\n", file=sys.stderr, flush=True)  # noqa: T201 - the job's log
        return error.exit_code
    return 0


def train(spec: PhaseSpec, attempt: AttemptDirectory) -> None:
    """Make the steps of a phase that no earlier run made.

    Raises:
        Stopped: it was told to end.
        LLMZeroError: VeRL failed, or the model, the data, the reward or the disk is not as it should be.
    """
    restart = int(os.environ.get("LLMZERO_RESTART", "0"))
    place = Layout.of_run(spec.training_state, attempt, restart)
    for folder in (spec.checkpoints, place.states, place.folder):
        make_folder(folder)
    resumed = take_up(place)
    writer = MetricsWriter(attempt.metrics, int(attempt.path.name), restart)
    mirror = Mirror(spec, place, writer, resumed, _tell)
    attempts = PhaseDirectory(attempt.path.parent.parent).attempts()
    mirror.catch_up([log for each in attempts for log in _logs(spec, each)], [each.metrics for each in attempts])
    if mirror.is_complete:
        return
    start_anew(place)
    write_phase_inputs(spec, place)
    overrides = rendered(spec, place)
    if mirror.is_score_due:
        # VeRL would go on with the next step: this one was saved, and the run killed before its score was known.
        overrides.append(assignment("trainer.val_before_train", value=True))

    def look() -> bool:
        mirror.look()
        check_mistake(place)
        return mirror.is_complete

    exit_code = Child(overrides, spec.hardware, place.command).run(look)
    if not mirror.is_complete:
        raise failed_run(exit_code, attempt.trainer_log)


def check_mistake(place: Layout) -> None:
    """Look for what the reward has to complain of.

    Raises:
        ConfigurationError: a mistake in the user's reward or task; VeRL would train on without the response.
    """
    found = read_bytes(place.mistake)
    if found:
        message, _, next_step = found.decode(errors="replace").partition("\n")
        raise ConfigurationError(message, next_step)


def start_anew(place: Layout) -> None:
    """Remove what an earlier process of this very run left: VeRL empties its log, which is read from the start.

    Raises:
        StorageError: the file system refused.
    """
    for path in (place.metrics, place.mistake):
        remove(path)


def _logs(spec: PhaseSpec, attempt: AttemptDirectory) -> list[Path]:
    """VeRL's logs of the runs of an attempt, in their order."""
    restarts = [0, *(run for run in attempt.claimed_runs() if run)]
    return [Layout.of_run(spec.training_state, attempt, restart).metrics for restart in restarts]


def _tell(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the job's log


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
