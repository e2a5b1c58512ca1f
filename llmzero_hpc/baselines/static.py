"""Static configurations without a model of the scores: the practitioner's one, a grid, random samples."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from llmzero_hpc.baselines.base import Baseline, Problems
from llmzero_hpc.baselines.space import configured, sampled, within_bounds
from llmzero_hpc.errors import AgentError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.method_sections import GridMethod, PractitionerMethod, Ranges
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.node import Node


class Practitioner(Baseline):
    """The configuration of `search.yaml`, once."""

    def __init__(self, config: SearchConfig, problems: Problems, method: PractitionerMethod) -> None:
        super().__init__(config, problems)
        self._epochs = method.epochs

    def trial(self, earlier: Sequence[Node], seed: int) -> Configuration:  # noqa: ARG002 - contract
        """It, as long as it is to be."""
        return self._base if self._epochs is None else self._base.changed(epochs=self._epochs)


class Grid(Baseline):
    """All combinations, the last hyperparameter changing fastest."""

    def __init__(self, config: SearchConfig, problems: Problems, method: GridMethod) -> None:
        super().__init__(config, problems)
        self._points = [
            configured(self._base, {**method.changes, **dict(zip(method.values, values, strict=True))})
            for values in product(*method.values.values())
        ]

    def check(self) -> None:
        """Whether every combination can be trained.

        Raises:
            ConfigurationError: one cannot.
        """
        for point in self._points:
            for problem in self._problems(point):
                raise ConfigurationError(
                    f"a combination of the grid cannot be trained: {problem}", "change method.values or method.changes"
                )

    def trial(self, earlier: Sequence[Node], seed: int) -> Configuration:  # noqa: ARG002 - contract
        """The first combination that was not tried.

        Raises:
            AgentError: all were.
        """
        tried = [node.configuration for node in earlier]
        for point in self._points:
            if point not in tried:
                return point
        raise AgentError("all combinations of the grid were tried")


class RandomSearch(Baseline):
    """Independent samples."""

    def __init__(self, config: SearchConfig, problems: Problems, ranges: Ranges) -> None:
        super().__init__(config, problems)
        self._space = within_bounds(ranges, config.bounds)

    def trial(self, earlier: Sequence[Node], seed: int) -> Configuration:  # noqa: ARG002 - contract
        """A sample.

        Raises:
            AgentError: none could be trained.
        """
        return self._drawn(lambda random: configured(self._base, sampled(self._space, random)), seed)
