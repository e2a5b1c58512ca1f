"""The contract of a task: rows for training, validation and test, and the reward of a response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Split(StrEnum):
    """Parts of a dataset, disjoint. Only the final evaluation reads `TEST`."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Row:
    """One problem, in the shape of VeRL's parquet rows.

    `prompt` is plain text, or chat messages (`{"role", "content"}`) for the model's chat template.
    `data_source` names the subtask; validation reports a score for each.
    """

    prompt: str | tuple[Mapping[str, str], ...]
    ground_truth: str
    data_source: str
    extra_info: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A dataset with its reward.

    Deterministic: the same split gives the same rows in the same order in every process, and `reward` depends on its
    arguments alone. Instances are made anew in each process and never pickled.
    """

    @abstractmethod
    def rows(self, split: Split) -> Sequence[Row]:
        """All rows of a split.

        Raises:
            ConfigurationError: the data is not there or not of the right form.
        """

    @abstractmethod
    def reward(self, row: Row, response: str, *, truncated: bool) -> float:
        """Reward of a response; `truncated` says that it was cut off at the limit before its end token.

        Raises:
            ConfigurationError: the user's reward function raised or returned no number; the message shows on what.
        """
