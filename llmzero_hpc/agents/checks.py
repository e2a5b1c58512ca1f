"""What an answer must be before anything is made of it, whoever gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.search.node import TransitionKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.agents.base import FailureRequest, Proposal, ProposalRequest, Repair
    from llmzero_hpc.search.configuration import Configuration


def proposal_problems(
    request: ProposalRequest, proposal: Proposal, trainer_problems: Callable[[Configuration], list[str]]
) -> list[str]:
    """Why an answer cannot be used; empty when it can."""
    problems = proposal.configuration.problems(request.bounds)
    parent = request.parent.configuration
    if request.kind is TransitionKind.SCRATCH:
        if proposal.resume_step is not None:
            problems.append("a scratch phase resumes from no checkpoint")
    else:
        steps = {point.step for point in request.checkpoints}
        if proposal.resume_step not in steps:
            problems.append(f"step {proposal.resume_step} is not a checkpoint of node {request.parent.id}")
        if parent is not None:
            problems.extend(f"{name} is fixed in a strategy" for name in parent.fixed_changes(proposal.configuration))
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
