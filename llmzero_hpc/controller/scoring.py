"""The test score of the best strategy: one evaluation job, once, when the search is over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.controller.advance import advance_evaluation
from llmzero_hpc.search.node import CheckpointReference, Ending
from llmzero_hpc.search.tree import Evaluation
from llmzero_hpc.tasks.base import Split

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.controller.house import House
    from llmzero_hpc.controller.jobs import Jobs, Sight
    from llmzero_hpc.controller.state import SearchState
    from llmzero_hpc.search.tree import Tree


class Scoring:
    """Has the best checkpoint scored on the test split. No agent and no selection ever sees the result."""

    def __init__(self, house: House, state: SearchState, jobs: Jobs) -> None:
        self._submission = house.submission
        self._views = house.views
        self._has_test = getattr(house.directory.record.config.task, "test", True) is not None
        self._state = state
        self._jobs = jobs

    def is_due(self) -> bool:
        """Whether there is something to score that has no score yet. Asked when the search is over."""
        tree = self._state.tree
        return self._has_test and tree.best() is not None and not (tree.evaluation and tree.evaluation.is_over)

    def start(self, allowance: float | None) -> None:
        """Submit the evaluation, or its next attempt, unless one is under way.

        It may cost `allowance` device-seconds; None is no limit. With nothing left there is no test score.
        """
        tree = self._state.tree
        evaluation, best = tree.evaluation, tree.best()
        if evaluation is None and best is not None and best.best is not None:
            evaluation = Evaluation(CheckpointReference(best.id, best.best.step), Split.TEST.value)
        if evaluation is None or (evaluation.attempts and not evaluation.attempts[-1].is_over):
            return
        if self._jobs.is_resting(evaluation.attempts):
            return
        if allowance == 0:
            self._put(replace(evaluation, problem="the compute budget does not cover it"))
            return
        intended = self._submission.intended_evaluation(evaluation, allowance)
        self._put(intended)
        self._try(intended, self._submission.launched_evaluation)
        self._state.say("evaluation", "test score of the best strategy", intended.checkpoint.node)

    def submit_open_intent(self) -> None:
        """As for phases: an intent without a job is from before a crash, or was refused."""
        evaluation = self._state.tree.evaluation
        if evaluation and evaluation.attempts and not evaluation.is_over:
            attempt = evaluation.attempts[-1]
            if attempt.job is None and not attempt.is_over:
                self._try(evaluation, self._submission.recovered_evaluation)

    def advance(self, sight: Sight) -> None:
        """Take in what became of the evaluation's job."""
        evaluation = self._state.tree.evaluation
        if evaluation is None or evaluation.is_over or not evaluation.attempts:
            return
        attempt = self._jobs.advanced(evaluation.attempts[-1], self._submission.evaluation_folder(evaluation), sight)
        result = self._submission.evaluation_result(evaluation) if attempt.ending is Ending.COMPLETED else None
        evaluation = advance_evaluation(evaluation, attempt, result, self._jobs.policy)
        self._put(evaluation)
        if evaluation.is_over:
            score = "no test score" if evaluation.score is None else f"test score {evaluation.score:.4f}"
            self._state.say("evaluation", f"{score} {evaluation.problem}".strip(), evaluation.checkpoint.node)
            self._views.request()

    def _try(self, evaluation: Evaluation, submitted: Callable[[Tree, Evaluation], Evaluation]) -> None:
        if self._jobs.may_submit(evaluation.attempts[-1], evaluation.attempts[:-1]):
            launched = submitted(self._state.tree, evaluation)
            self._put(launched)
            self._jobs.was_tried(launched.attempts[-1])

    def _put(self, evaluation: Evaluation) -> None:
        self._state.commit(replace(self._state.tree, evaluation=evaluation))
