"""Running phases in this process or in a forked one that dies at a chosen moment, and reading what they left."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.store.metrics_log import MetricsWriter, read_series
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.trainers.checkpoints import checkpoint_path, complete_checkpoints
from llmzero_hpc.trainers.trl import scoring, train, training_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.trainers.base import PhaseSpec

SMALL = Configuration(
    max_response_length=6,
    rollouts=4,
    learning_rate=1e-2,
    kl_coefficient=0.0,
    batch_size=4,
    mini_batches=2,
    epochs=1.0,
    advantage_normalization=True,
    lora_rank=4,
    lora_alpha=8,
)

CLOCKED = {"step_seconds", "tokens_per_second"}


def attempt_of(spec: PhaseSpec, number: int) -> AttemptDirectory:
    attempt = AttemptDirectory(spec.checkpoints.parent / "attempts" / str(number))
    attempt.create()
    return attempt


def run(spec: PhaseSpec, attempt: int = 1) -> PhaseSpec:
    train.train(spec, attempt_of(spec, attempt))
    return spec


def adapters(spec: PhaseSpec) -> dict[int, bytes]:
    """The weights of all complete checkpoints."""
    return {
        step: (checkpoint_path(spec.checkpoints, step) / "adapter_model.safetensors").read_bytes()
        for step in complete_checkpoints(spec.checkpoints)
    }


def metrics(spec: PhaseSpec, attempts: int = 1) -> dict[int, dict[str, float]]:
    """Canonical metrics by step as readers see them, without those that a clock has a part in."""
    paths = [attempt_of(spec, number).metrics for number in range(1, attempts + 1)]
    return {
        row.step: {name: value for name, value in row.values.items() if name not in CLOCKED}
        for row in read_series([path for path in paths if path.is_file()]).rows
    }


def killed_at(spec: PhaseSpec, attempt: int, moment: str, occurrence: int) -> int:
    """Runs an attempt in a fork that is killed just before (or `after:`) a moment; its exit status."""

    def dying() -> int:
        _arm(moment, occurrence)
        run(spec, attempt)
        return 0

    return exit_status(dying)


def exit_status(action: Callable[[], int]) -> int:
    """Runs an action in a fork and makes what it returns the exit status; negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _arm(moment: str, occurrence: int) -> None:
    what, after = moment.removeprefix("after:"), moment.startswith("after:")
    owner, name = {
        "rename": (Path, "rename"),
        "row": (MetricsWriter, "write"),
        "progress": (training_state, "write_json"),
        "reward": (scoring, "reward_of"),
    }[what]
    original: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, 1_000_000))

    def dying(*arguments: Any, **options: Any) -> Any:
        fatal = next(calls) == occurrence
        if fatal and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)
