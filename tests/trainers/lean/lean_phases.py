"""Running phases of the lean trainer."""

from __future__ import annotations

from dying_phases import PhaseRunner

from llmzero_hpc.trainers.lean import train

_LEAN = PhaseRunner(train.train, progress=(train, "write_progress"), reward=(train, "reward_of"))
run, killed_at = _LEAN.run, _LEAN.killed_at
