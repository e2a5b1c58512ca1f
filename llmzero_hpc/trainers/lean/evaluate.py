"""`python -m llmzero_hpc.trainers.lean.evaluate <config.yaml> <attempt_directory>`: score an adapter on a split."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.store.atomic import write_json
from llmzero_hpc.tasks.models import resolve_model
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.decoding import Responses, Sampling, respond
from llmzero_hpc.trainers.lean.adapter import read_adapter
from llmzero_hpc.trainers.lean.policy import CachedPolicy, Policy, read_shape, read_weights
from llmzero_hpc.trainers.lean.vocabulary import Vocabulary
from llmzero_hpc.trainers.scoring import score
from llmzero_hpc.trainers.specification import read_evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.trainers.base import EvaluationResult, EvaluationSpec


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. What is wrong with the user's files is one line on stderr."""
    try:
        specification = read_evaluation(Path(arguments[0]))
        write_json(specification.result, asdict(evaluate(specification)))
    except LLMZeroError as error:
        print(f"error: {error.message}", error.next_step, sep="\n", file=sys.stderr)  # noqa: T201 - the job's log
        return error.exit_code
    return 0


def evaluate(spec: EvaluationSpec) -> EvaluationResult:
    """Greedy responses to all rows of a split by the base model with the adapter merged, and their scores.

    Raises:
        ConfigurationError: the model, the adapter or the data is not there or does not fit.
    """
    torch.set_num_threads(spec.hardware.threads)
    folder = resolve_model(spec.model)
    vocabulary, weights = Vocabulary(folder), read_weights(folder)
    task = load_task(spec.task)
    rows = task.rows(spec.split)
    with torch.no_grad():
        policy = Policy(read_shape(folder), weights, read_adapter(spec.adapter, weights).changes())

    def greedy(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        responses: Responses = respond(
            CachedPolicy(policy),
            prompts,
            limit=spec.max_response_length,
            end_tokens=vocabulary.ends,
            padding=vocabulary.padding,
            sampling=Sampling(0),
        )
        return responses.lists()

    return score(task, rows, vocabulary.prompts(rows), greedy, vocabulary, vocabulary.ends)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
