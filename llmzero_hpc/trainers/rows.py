"""Whether the rows of a task can be trained on: prompts that fit, rewards that can be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.sections import FilesTask
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.registry import load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.tasks.base import Row, Task

_SAMPLES: Final = 3


def check_rows(config: SearchConfig, tokens: Callable[[Sequence[Row]], list[list[int]]], longest: int) -> None:
    """Look at all rows of a search's task, and at the reward of some.

    Args:
        config: the search.
        tokens: those of the prompts of rows.
        longest: sequence that the model takes, tokens.

    Raises:
        ConfigurationError: what is wrong with which row.
    """
    task = load_task(config.task)
    response = config.validation_max_response_length(config.configuration)
    room = longest - max(config.configuration.max_response_length, response)
    for split in Split:
        if split is Split.TEST and isinstance(config.task, FilesTask) and config.task.test is None:
            continue
        rows = task.rows(split)
        if not rows:
            raise ConfigurationError(f"task: there are no {split} rows")
        if len({isinstance(row.prompt, str) for row in rows}) > 1:
            raise ConfigurationError(f"task: some {split} prompts are text, some are messages; make them all one")
        _check_prompts(config, split, tokens(rows), room)
        _check_rewards(task, rows)
    batch, available = config.configuration.batch_size, len(task.rows(Split.TRAIN))
    if batch > available:
        raise ConfigurationError(f"configuration.batch_size: {batch}, but there are only {available} training rows")


def _check_prompts(config: SearchConfig, split: Split, prompts: list[list[int]], room: int) -> None:
    limit = config.task.max_prompt_length if isinstance(config.task, FilesTask) else None
    for number, tokens in enumerate(prompts, 1):
        if not tokens:
            raise ConfigurationError(f"task: the prompt of {split} row {number} has no tokens")
        if limit is not None and len(tokens) > limit:
            raise ConfigurationError(
                f"task: the prompt of {split} row {number} has {len(tokens)} tokens, more than {limit}",
                "shorten the prompt, or raise task.max_prompt_length",
            )
        if len(tokens) > room:
            raise ConfigurationError(
                f"task: the prompt of {split} row {number} has {len(tokens)} tokens; with the longest response "
                f"that is more than the model takes ({room} are left for a prompt)",
                "shorten the prompt, or lower max_response_length and its bounds",
            )


def _check_rewards(task: Task, rows: Sequence[Row]) -> None:
    for row in rows[:_SAMPLES]:
        for response, truncated in ((row.ground_truth, False), ("", True)):
            task.reward(row, response, truncated=truncated)
