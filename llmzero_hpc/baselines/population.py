"""Population-based training: copies of the best members, with perturbed hyperparameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import Proposal, ProposalRequest
from llmzero_hpc.baselines.base import Baseline, Problems
from llmzero_hpc.baselines.space import configured, perturbed, sampled, within_bounds
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass
from llmzero_hpc.search.node import TransitionKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.method_sections import PbtMethod
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.node import Node


class PopulationTraining(Baseline):
    """Who goes on from whom is the tree's growth (`search.methods.Population`); this says with which values."""

    def __init__(self, config: SearchConfig, problems: Problems, method: PbtMethod) -> None:
        super().__init__(config, problems)
        self._epochs = method.generation_epochs
        self._factors = method.factors
        space = within_bounds(method.ranges, config.bounds)
        self._space = {name: dimension for name, dimension in space.items() if name != "epochs"}
        self._moving = {
            name: dimension
            for name, dimension in self._space.items()
            if HYPERPARAMETERS[name].parameter_class is not ParameterClass.FIXED
        }

    def trial(self, earlier: Sequence[Node], seed: int) -> Configuration:  # noqa: ARG002 - contract
        """A member of the first generation: a sample.

        Raises:
            AgentError: none could be trained.
        """
        return self._drawn(
            lambda random: configured(self._base, sampled(self._space, random) | {"epochs": self._epochs}), seed
        )

    def _continued(self, request: ProposalRequest) -> Proposal:
        parent = request.parent.configuration or self._base
        step = request.checkpoints[-1].step
        # trials from scratch hang under node 0 as well
        if not any(sibling.node.kind is TransitionKind.EVOLVE for sibling in request.siblings):
            return Proposal(parent, step, self._rationale(f"node {request.parent.id} goes on"))
        copy = self._drawn(
            lambda random: configured(parent, perturbed(self._moving, parent, self._factors, random)), request.seed
        )
        return Proposal(copy, step, self._rationale(f"a copy of node {request.parent.id}, perturbed"))
