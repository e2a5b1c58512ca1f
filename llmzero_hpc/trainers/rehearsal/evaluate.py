"""The command of a made-up score: `python -m llmzero_hpc.trainers.rehearsal.evaluate CONFIG ATTEMPT_DIRECTORY`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.store.atomic import write_json
from llmzero_hpc.trainers.base import EvaluationResult
from llmzero_hpc.trainers.rehearsal.adapter import load_adapter, say, surface_of
from llmzero_hpc.trainers.rehearsal.simulation import score
from llmzero_hpc.trainers.specification import read_evaluation

if TYPE_CHECKING:
    from llmzero_hpc.trainers.base import EvaluationSpec


def evaluation(spec: EvaluationSpec) -> EvaluationResult:
    """The scores of an adapter of the rehearsal; the same arguments give the same result."""
    salt = f"{spec.split} {spec.seed} {spec.step}"
    scores = score(load_adapter(spec.adapter), surface_of(spec.task), spec.max_response_length, salt=salt)
    return EvaluationResult(sum(scores.values()) / len(scores), scores, spec.rehearsal.train_rows)


def main() -> int:
    """Run the evaluation that the command line names."""
    say("SIMULATED: nothing is measured, every number is made up")
    try:
        spec = read_evaluation(Path(sys.argv[1]))
        result = evaluation(spec)
        write_json(spec.result, asdict(result))
    except LLMZeroError as error:
        say(f"error: {error.message}\n{error.next_step}".strip())
        return error.exit_code
    say(f"SIMULATED {spec.split} score {result.score:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
