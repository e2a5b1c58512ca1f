"""`python -m llmzero_hpc.trainers.verl.evaluate <config.yaml> <attempt_directory>`: score an adapter on a split."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.store.atomic import make_folder, write_json
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.specification import read_evaluation
from llmzero_hpc.trainers.verl.child import Child
from llmzero_hpc.trainers.verl.errors import failed_run
from llmzero_hpc.trainers.verl.inputs import write_evaluation_inputs
from llmzero_hpc.trainers.verl.layout import Layout
from llmzero_hpc.trainers.verl.log import LogReader
from llmzero_hpc.trainers.verl.metrics import validation_result
from llmzero_hpc.trainers.verl.rendering import rendered_evaluation
from llmzero_hpc.trainers.verl.run import check_mistake, reported, start_anew

if TYPE_CHECKING:
    from llmzero_hpc.trainers.base import EvaluationResult, EvaluationSpec


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. What is wrong is one line on stderr, after what VeRL said."""

    def action() -> None:
        spec = read_evaluation(Path(arguments[0]))
        write_json(spec.result, asdict(evaluate(spec, AttemptDirectory(Path(arguments[1])))))

    return reported(action)


def evaluate(spec: EvaluationSpec, attempt: AttemptDirectory) -> EvaluationResult:
    """Scores of greedy responses to all rows of a split, by the validation that scores phases as well.

    Raises:
        Stopped: it was told to end.
        LLMZeroError: VeRL failed, or the model, the adapter, the data or the reward is not as it should be.
    """
    restart = int(os.environ.get("LLMZERO_RESTART", "0"))
    place = Layout.of_run(attempt.path / "states", attempt, restart)
    make_folder(place.folder)
    start_anew(place)
    write_evaluation_inputs(spec, place)
    rows = Counter(row.data_source for row in load_task(spec.task).rows(spec.split))
    log = LogReader(place.metrics)
    results: list[EvaluationResult] = []

    def look() -> bool:
        found = (validation_result(line.raw, rows) for line in log.new_lines())
        results.extend(result for result in found if result is not None)
        check_mistake(place)
        return bool(results)

    exit_code = Child(rendered_evaluation(spec, place), spec.hardware, place.command).run(look)
    if not results:
        raise failed_run(exit_code, attempt.trainer_log)
    return results[-1]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
