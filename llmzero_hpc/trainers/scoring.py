"""Scores of greedy responses on a split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmzero_hpc.trainers.base import EvaluationResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llmzero_hpc.tasks.base import Row, Task

BATCH_ROWS = 256
"""Prompts decoded at once."""


def reward_of(task: Task, row: Row, tokens: Sequence[int], tokenizer: Any, ends: Sequence[int]) -> float:
    """Reward of the tokens of a response; without an end token at their end they were cut off."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return task.reward(row, text, truncated=not tokens or tokens[-1] not in ends)


def score(
    task: Task,
    rows: Sequence[Row],
    prompts: Sequence[Sequence[int]],
    greedy: Callable[[Sequence[Sequence[int]]], Sequence[Sequence[int]]],
    tokenizer: Any,
    ends: Sequence[int],
) -> EvaluationResult:
    """Scores on rows whose prompts have these tokens; `greedy` responds to a batch of them."""
    return summary(rewards(task, rows, prompts, greedy, tokenizer, ends))


def rewards(
    task: Task,
    rows: Sequence[Row],
    prompts: Sequence[Sequence[int]],
    greedy: Callable[[Sequence[Sequence[int]]], Sequence[Sequence[int]]],
    tokenizer: Any,
    ends: Sequence[int],
) -> list[tuple[str, float]]:
    """The `data_source` and the reward of each row."""
    found = []
    for start in range(0, len(rows), BATCH_ROWS):
        batch = rows[start : start + BATCH_ROWS]
        for row, tokens in zip(batch, greedy(prompts[start : start + BATCH_ROWS]), strict=True):
            found.append((row.data_source, reward_of(task, row, tokens, tokenizer, ends)))
    return found


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
