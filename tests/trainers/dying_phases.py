"""Running phases in this process, or in a forked one that dies at a chosen moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_phases import attempt_of, exit_status

from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.trainers.base import PhaseSpec

Function = tuple[Any, str]
"""Where a function is looked up, and its name there."""


@dataclass(frozen=True)
class PhaseRunner:
    """Phases of one trainer.

    `progress` and `reward` are what it calls to keep its training state, and for each reward.
    """

    train: Callable[[PhaseSpec, AttemptDirectory], object]
    progress: Function
    reward: Function

    def run(self, spec: PhaseSpec, attempt: int = 1) -> PhaseSpec:
        """An attempt, to its end."""
        self.train(spec, attempt_of(spec, attempt))
        return spec

    def killed_at(self, spec: PhaseSpec, attempt: int, moment: str, occurrence: int) -> int:
        """Runs an attempt in a fork that is killed just before (or `after:`) a moment; its exit status.

        Moments: the name of a checkpoint (`rename`), a `row` of metrics, `progress`, `reward`.
        """

        def dying() -> int:
            self._arm(moment, occurrence)
            self.run(spec, attempt)
            return 0

        return exit_status(dying)

    def _arm(self, moment: str, occurrence: int) -> None:
        what, after = moment.removeprefix("after:"), moment.startswith("after:")
        owner, name = {
            "rename": (Path, "rename"),
            "row": (MetricsWriter, "write"),
            "progress": self.progress,
            "reward": self.reward,
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
