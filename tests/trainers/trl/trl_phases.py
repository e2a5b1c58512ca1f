"""Running phases of the TRL trainer."""

from __future__ import annotations

from dying_phases import PhaseRunner

from llmzero_hpc.trainers import scoring, training_state
from llmzero_hpc.trainers.trl import train

_TRL = PhaseRunner(train.train, progress=(training_state, "write_json"), reward=(scoring, "reward_of"))
run, killed_at = _TRL.run, _TRL.killed_at
