"""The chains task: its three splits and its reward."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import TYPE_CHECKING, Final

from llmzero_hpc.tasks.base import Row, Split, Task
from llmzero_hpc.tasks.chains.problem import draw
from llmzero_hpc.tasks.chains.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS: Final = {Split.TRAIN: 4096, Split.VALIDATION: 512, Split.TEST: 1024}
_SEEDS: Final = {Split.TRAIN: 11, Split.VALIDATION: 99, Split.TEST: 777}


class ChainArithmetic(Task):
    """Chains of a variant; of `two-lengths` short ones (2 to 4 additions) and long ones (12 to 16 operations).

    A response derives every running value and ends with `#` and the last two: `+4=3*6=8#38`. A short problem needs at
    most 16 tokens with the end token, a long one 52. Families take turns, so half of all rows are `short`.

    No prompt occurs in two splits. Rows of validation and test are all different; train repeats some short prompts.
    """

    def __init__(self, variant: str = "two-lengths") -> None:
        self._variant = variant

    def rows(self, split: Split) -> Sequence[Row]:
        """4096 rows for training, 512 for validation, 1024 for the test."""
        return _rows(self._variant, split)

    def reward(self, row: Row, response: str, *, truncated: bool) -> float:
        """1 if the response ended by itself with the right answer, else 0; how it got there does not matter."""
        return float(not truncated and response.endswith("#" + row.ground_truth))


@cache
def _rows(name: str, split: Split) -> tuple[Row, ...]:
    variant = VARIANTS[name]
    families = variant.training if split is Split.TRAIN else variant.families
    random = Random(_SEEDS[split])  # noqa: S311 - the rows must be the same everywhere, not secret
    rows: list[Row] = []
    seen: set[str] = set()
    while len(rows) < ROWS[split]:
        family = families[len(rows) % len(families)]
        problem = draw(random, family, split)
        if split is not Split.TRAIN and problem.prompt in seen:
            continue
        seen.add(problem.prompt)
        extra_info = {"split": split.value, "index": len(rows), "operations": len(problem.operations)}
        rows.append(Row(problem.prompt, problem.answer, family.name, extra_info))
    return tuple(rows)
