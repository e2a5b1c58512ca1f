"""What an answer must be before anything is made of it, whoever gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.search.node import TransitionKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.agents.base import FailureRequest, Proposal, ProposalRequest, Repair
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.node import Node


def proposal_problems(
    request: ProposalRequest, proposal: Proposal, trainer_problems: Callable[[Configuration], list[str]]
) -> list[str]:
    """Why an answer cannot be used; empty when it can."""
    problems = proposal.configuration.problems(request.bounds)
    source: Node | None = None if request.kind is TransitionKind.SCRATCH else request.parent
    checkpoints = request.checkpoints
    if request.history and proposal.resume_node is not None:
        source = next((node for node, _ in request.history if node.id == proposal.resume_node), None)
        if source is None:
            return [f"there is no node {proposal.resume_node}"]
        checkpoints = source.checkpoints
    if source is None:
        if proposal.resume_step is not None:
            problems.append("a scratch phase resumes from no checkpoint")
    else:
        if proposal.resume_step not in {point.step for point in checkpoints}:
            problems.append(f"step {proposal.resume_step} is not a checkpoint of node {source.id}")
        if source.configuration is not None:
            changes = source.configuration.fixed_changes(proposal.configuration)
            problems.extend(f"{name} is fixed in a strategy" for name in changes)
    return problems or trainer_problems(proposal.configuration)


def repair_problems(
    request: FailureRequest, repair: Repair, trainer_problems: Callable[[Configuration], list[str]]
) -> list[str]:
    """Why a repair cannot be used; empty when it can."""
    problems = repair.configuration.problems(request.bounds)
    failed = request.node
    resumes = failed.resume is not None or repair.resume_step is not None
    if repair.resume_step is not None and repair.resume_step not in {point.step for point in failed.checkpoints}:
        problems.append(f"step {repair.resume_step} is not a checkpoint of node {failed.id}")
    if resumes and failed.configuration is not None:
        problems.extend(
            f"{name} is fixed in a strategy" for name in failed.configuration.fixed_changes(repair.configuration)
        )
    return problems or trainer_problems(repair.configuration)
