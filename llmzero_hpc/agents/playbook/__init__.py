"""Rules over metrics that propose, stop and repair phases: deterministic, free, offline, and no language model."""

from __future__ import annotations

from llmzero_hpc.agents.base import Agents, FailureRequest, Proposal, ProposalRequest, Repair, StopAnswer, StopRequest
from llmzero_hpc.agents.playbook import early_stopper, error_analyzer, proposer


class Playbook(Agents):
    """The default without a model endpoint, and the fallback when one is down. Stateless; never raises."""

    def propose(self, request: ProposalRequest) -> Proposal:
        """A coordinated change that answers what the parent's metrics show."""
        return proposer.propose(request)

    def judge(self, request: StopRequest) -> StopAnswer:
        """STOP when validation has no realistic chance of passing the best score."""
        return early_stopper.judge(request)

    def repair(self, request: FailureRequest) -> Repair:
        """A configuration that avoids what the log shows, unlike earlier repairs."""
        return error_analyzer.repair(request)


__all__ = ["Playbook"]
