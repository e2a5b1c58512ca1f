"""Scores of greedy responses on a split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmzero_hpc.trainers.base import EvaluationResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmzero_hpc.tasks.base import Row, Task

BATCH_ROWS = 256
"""Prompts decoded at once."""


def reward_of(task: Task, row: Row, tokens: Sequence[int], tokenizer: Any, ends: Sequence[int]) -> float:
    """Reward of the tokens of a response; without an end token at their end they were cut off."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return task.reward(row, text, truncated=not tokens or tokens[-1] not in ends)


def summary(rewards: Iterable[tuple[str, float]]) -> EvaluationResult:
    """Mean over all rows, and over those of each `data_source`, from pairs of that and a reward."""
    by_source: dict[str, list[float]] = {}
    for source, reward in rewards:
        by_source.setdefault(source, []).append(reward)
    rows = sum(map(len, by_source.values()))
    return EvaluationResult(
        score=sum(map(sum, by_source.values())) / rows,
        subtask_scores={source: sum(found) / len(found) for source, found in sorted(by_source.items())},
        rows=rows,
    )
