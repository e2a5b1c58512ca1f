"""`python -m llmzero_hpc.trainers.trl.evaluate <config.yaml> <attempt_directory>`: score an adapter on a split."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.store.atomic import write_json
from llmzero_hpc.tasks.models import resolve_model
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.specification import read_evaluation
from llmzero_hpc.trainers.trl.train import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.trainers.base import EvaluationResult, EvaluationSpec


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. What is wrong with the user's files is one line on stderr."""
    quiet()
    try:
        specification = read_evaluation(Path(arguments[0]))
        if int(os.environ.get("RANK", "0")) == 0:
            write_json(specification.result, asdict(evaluate(specification)))
    except LLMZeroError as error:
        print(f"error: {error.message}", error.next_step, sep="\n", file=sys.stderr)  # noqa: T201 - the job's log
        return error.exit_code
    return 0


def evaluate(spec: EvaluationSpec) -> EvaluationResult:
    """Greedy responses to all rows of a split by the base model with the adapter merged, and their scores.

    On one device; other processes of the launcher leave at once.

    Raises:
        ConfigurationError: the model, the adapter or the data is not there or does not fit.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    from llmzero_hpc.trainers.decoding import Sampling
    from llmzero_hpc.trainers.scoring import score
    from llmzero_hpc.trainers.trl.generation import decode
    from llmzero_hpc.trainers.trl.model import (
        device_of,
        end_tokens,
        load_base,
        load_tokenizer,
        prompt_tokens,
        with_trained_adapter,
    )

    disable_progress_bar()
    torch.set_num_threads(spec.hardware.threads)
    folder = resolve_model(spec.model)
    tokenizer = load_tokenizer(folder)
    task = load_task(spec.task)
    rows = task.rows(spec.split)
    prompts = prompt_tokens(tokenizer, rows)
    adapted = with_trained_adapter(load_base(folder, spec.hardware), spec.adapter, trainable=False)
    model = adapted.merge_and_unload().eval().to(device_of(spec.hardware))
    ends = end_tokens(model, tokenizer)

    def greedy(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        return decode(
            model,
            prompts,
            limit=spec.max_response_length,
            end_tokens=ends,
            padding=tokenizer.pad_token_id,
            sampling=Sampling(temperature=0),
        )

    return score(task, rows, prompts, greedy, tokenizer, ends)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
