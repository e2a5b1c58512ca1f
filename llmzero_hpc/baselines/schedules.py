"""Strategies that are fixed before they begin: the Capacity Guidebook, and one that another search found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import Proposal, ProposalRequest
from llmzero_hpc.baselines.base import Baseline, Problems
from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.method_sections import GuidebookMethod
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.node import Node


class FixedStrategy(Baseline):
    """Phases one after the other, each from the last checkpoint of the one before."""

    def __init__(self, config: SearchConfig, problems: Problems, phases: tuple[Configuration, ...]) -> None:
        super().__init__(config, problems)
        self._phases = phases

    def check(self) -> None:
        """Whether every phase can be trained, and resume the one before.

        Raises:
            ConfigurationError: one cannot.
        """
        for number, phase in enumerate(self._phases, start=1):
            problems = self._problems(phase)
            problems += [f"{name} is fixed in a strategy" for name in self._phases[0].fixed_changes(phase)]
            if problems:
                raise ConfigurationError(
                    f"phase {number} of the strategy cannot be trained: {problems[0]}",
                    "widen `bounds`, or change the strategy",
                )

    def trial(self, earlier: Sequence[Node], seed: int) -> Configuration:  # noqa: ARG002 - contract
        """The first phase."""
        return self._phases[0]

    def _continued(self, request: ProposalRequest) -> Proposal:
        number = len(request.phases)
        return Proposal(
            self._phases[number],
            request.checkpoints[-1].step,
            self._rationale(f"phase {number + 1} of {len(self._phases)}"),
        )


def guidebook_phases(base: Configuration, method: GuidebookMethod) -> tuple[Configuration, ...]:
    """Growing response length and rollouts, all else as in `base`."""
    return tuple(
        base.changed(
            max_response_length=max(1, round(base.max_response_length * length)),
            rollouts=max(2, round(base.rollouts * rollouts)),
        )
        for length, rollouts in zip(method.lengths, method.rollouts, strict=True)
    )
