"""Running phases of the lean trainer in this process, or in a forked one that dies at a chosen moment."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny_phases import attempt_of, exit_status

from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.trainers.lean import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.trainers.base import PhaseSpec


def run(spec: PhaseSpec, attempt: int = 1) -> PhaseSpec:
    train.train(spec, attempt_of(spec, attempt))
    return spec


def killed_at(spec: PhaseSpec, attempt: int, moment: str, occurrence: int) -> int:
    """Runs an attempt in a fork that is killed just before (or `after:`) a moment; its exit status."""

    def dying() -> int:
        _arm(moment, occurrence)
        run(spec, attempt)
        return 0

    return exit_status(dying)


def _arm(moment: str, occurrence: int) -> None:
    what, after = moment.removeprefix("after:"), moment.startswith("after:")
    owner, name = {
        "rename": (Path, "rename"),
        "row": (MetricsWriter, "write"),
        "progress": (train, "write_progress"),
        "reward": (train, "reward_of"),
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
