"""The contract of a baseline: agents that sample, copy or follow a schedule where LLMZero's diagnose."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import Agents, FailureRequest, Proposal, ProposalRequest, Repair, StopAnswer, StopRequest
from llmzero_hpc.errors import AgentError
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.node import Node, Rationale, TransitionKind

if TYPE_CHECKING:
    from llmzero_hpc.config import SearchConfig

Problems = Callable[[Configuration], list[str]]
"""Why a configuration cannot be trained in this search; empty when it can."""
_DRAWS = 256
"""Samples that are drawn until one can be trained."""


class Baseline(Agents):
    """Answers depend on the request alone: equal requests get equal answers, before and after a kill.

    Args:
        config: the search.
        problems: the table's, the bounds' and the trainer's objections to a configuration.
    """

    def __init__(self, config: SearchConfig, problems: Problems) -> None:
        self._base = config.configuration
        self._problems = problems
        self._name: str = config.method.kind

    @abstractmethod
    def trial(self, earlier: Sequence[Node], seed: int) -> Configuration:
        """A configuration to begin from scratch with, after those of `earlier` phases from scratch, by id.

        Raises:
            AgentError: there is none that could be trained.
        """

    def check(self) -> None:
        """Whether it can work in this search; called when the search is created.

        Raises:
            ConfigurationError: a setting cannot work.
            MissingDependencyError: an extra of this package is not installed.
        """

    def propose(self, request: ProposalRequest) -> Proposal:
        """A trial from scratch, or the next phase of a strategy."""
        if request.kind is TransitionKind.SCRATCH:
            earlier = [sibling.node for sibling in request.siblings]
            return self.first([node for node in earlier if node.is_active or node.counts], request.seed)
        return self._continued(request)

    def first(self, earlier: Sequence[Node], seed: int) -> Proposal:
        """A trial from scratch as a proposal."""
        return Proposal(self.trial(earlier, seed), None, self._rationale(f"trial {len(earlier) + 1}"))

    def judge(self, request: StopRequest) -> StopAnswer:  # noqa: ARG002 - contract
        """CONTINUE: runs go to their end."""
        return StopAnswer(stop=False, reason="runs go to their end", author=self._name)

    def repair(self, request: FailureRequest) -> Repair:
        """Never asked for: a failure is the result of its trial.

        Raises:
            AgentError: always.
        """
        raise AgentError(f"{self._name} repairs no phase (node {request.node.id})")

    def _continued(self, request: ProposalRequest) -> Proposal:
        """The phase after `request.parent`; baselines with static configurations have none."""
        raise AgentError(f"{self._name} continues no phase (node {request.parent.id})")

    def _rationale(self, diagnosis: str) -> Rationale:
        return Rationale(self._name, diagnosis)

    def _drawn(self, draw: Callable[[Random], Configuration], seed: int) -> Configuration:
        """The first of some samples that can be trained."""
        random = Random(seed)  # noqa: S311 - no cryptography
        problems: list[str] = []
        for _ in range(_DRAWS):
            configuration = draw(random)
            problems = self._problems(configuration)
            if not problems:
                return configuration
        raise AgentError(f"none of {_DRAWS} samples can be trained; the last: {problems[0]}", "narrow method.ranges")
