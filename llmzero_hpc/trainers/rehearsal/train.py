"""The command of a made-up phase: `python -m llmzero_hpc.trainers.rehearsal.train CONFIG ATTEMPT_DIRECTORY`."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.search.metrics import VALIDATION_SCORE
from llmzero_hpc.store.atomic import make_folder, read_bytes, write_json
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.trainers.checkpoints import checkpoint_path, is_adapter
from llmzero_hpc.trainers.rehearsal.adapter import load_adapter, save_adapter, say, surface_of
from llmzero_hpc.trainers.rehearsal.simulation import Policy, failing_step, initial_policy, score, train_step
from llmzero_hpc.trainers.specification import read_phase

if TYPE_CHECKING:
    from llmzero_hpc.trainers.base import PhaseSpec
    from llmzero_hpc.trainers.rehearsal.simulation import Observation

SIMULATED = {"SIMULATED": 1.0}
"""Among the raw metrics of every row."""

_MEMORY_TEXT = """\
Traceback (most recent call last):
  File "train.py", line 118, in training_step
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.31 GiB. GPU 0 has a total capacity of 39.39 GiB of \
which 1.02 GiB is free. [SIMULATED]"""
_NAN_TEXT = """\
Traceback (most recent call last):
  File "train.py", line 126, in training_step
    raise FloatingPointError("loss is nan; gradient norm is nan")
FloatingPointError: loss is nan; gradient norm is nan [SIMULATED]"""


def run(spec: PhaseSpec, attempt_directory: Path) -> int:
    """Make the phase up from where an earlier attempt left it; the exit code."""
    surface, rehearsal = surface_of(spec.task), spec.rehearsal
    attempt = int(os.environ.get("LLMZERO_ATTEMPT") or attempt_directory.name)
    restart = int(os.environ.get("LLMZERO_RESTART") or 0)
    writer = MetricsWriter(AttemptDirectory(attempt_directory).metrics, attempt, restart)
    policy, done, reported = _starting_point(spec)
    if reported:
        # The kill may have come between the state and its row; a row that is there already is repeated.
        writer.write(done, reported, SIMULATED)
    fails_at = failing_step(
        rehearsal.failure_rate,
        seed=spec.seed,
        node=spec.node,
        first_step=spec.first_step,
        total_steps=spec.total_steps,
    )
    for step in range(done + 1, spec.last_step + 1):
        if step == fails_at:
            say(_MEMORY_TEXT if spec.node % 2 else _NAN_TEXT)
            return 1
        policy, seen = train_step(policy, spec.configuration, surface, seed=spec.seed, step=step)
        time.sleep(rehearsal.step_seconds)
        values = _canonical(spec, policy, seen, step)
        if spec.is_validated(step):
            folder = checkpoint_path(spec.checkpoints, step)
            # A whole one is what this step would write again; a child may be reading it.
            if not is_adapter(folder):
                save_adapter(folder, policy, spec)
            scores = score(policy, surface, spec.validation_max_response_length, salt=f"validation {spec.seed} {step}")
            values[VALIDATION_SCORE] = sum(scores.values()) / len(scores)
            values |= {f"{VALIDATION_SCORE}/{name}": value for name, value in scores.items()}
            state = {"step": step, "policy": asdict(policy), "reported": values}
            write_json(spec.training_state / "state.json", state)
            say(f"SIMULATED step {step}/{spec.last_step} val_score {values[VALIDATION_SCORE]:.4f}")
        writer.write(step, values, SIMULATED)
    return 0


def _starting_point(spec: PhaseSpec) -> tuple[Policy, int, dict[str, float]]:
    """The policy, the last step that is behind it, and what this phase reported of that step."""
    for folder in (spec.checkpoints, spec.training_state):
        make_folder(folder)
    state = read_bytes(spec.training_state / "state.json")
    if state is not None:
        content = json.loads(state)
        return Policy(**content["policy"]), int(content["step"]), content["reported"]
    if spec.parent_adapter is None:
        return initial_policy(spec.seed), spec.first_step - 1, {}
    return load_adapter(spec.parent_adapter), spec.first_step - 1, {}


def _canonical(spec: PhaseSpec, policy: Policy, seen: Observation, step: int) -> dict[str, float]:
    configuration = spec.configuration
    steps_an_epoch = max(1, spec.rehearsal.train_rows // configuration.batch_size)
    tokens = seen.response_length_mean * configuration.batch_size * configuration.rollouts
    return {
        **asdict(seen),
        "epoch": (step - spec.first_step + 1) / steps_an_epoch,
        "kl": policy.drift,
        "entropy": policy.entropy,
        "learning_rate": configuration.learning_rate,
        "step_seconds": spec.rehearsal.step_seconds,
        "tokens_per_second": tokens / max(spec.rehearsal.step_seconds, 1e-3),
    }


def main() -> int:
    """Run the phase that the command line names."""
    say("SIMULATED: nothing is trained, every number is made up")
    try:
        return run(read_phase(Path(sys.argv[1])), Path(sys.argv[2]))
    except LLMZeroError as error:
        say(f"error: {error.message}\n{error.next_step}".strip())
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
