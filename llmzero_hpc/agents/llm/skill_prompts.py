"""What the skill agent is told: one system text, and a text for each event of its conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmzero_hpc.agents.llm import facts, prompts

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.agents.base import ProposalRequest, StopRequest
    from llmzero_hpc.config import SearchConfig

SKILLS = (
    "prepare-dataset",
    "define-reward",
    "validate-run",
    "generate-config",
    "download-model",
    "submit-training",
    "check-training",
    "gather-results",
)
"""The eight of the paper (appendix B.7), each a template in `skills/`."""
_SYSTEM, _PHASE = "skill_agent/system.md", "skill_agent/phase.md"


def system(config: SearchConfig, train_rows: int, tool_format: str, own: Path | None) -> str:
    """The system text; `tool_format` describes the tools where the endpoint knows none, and is else empty.

    Raises:
        ConfigurationError: a template cannot be rendered; so for all texts here.
    """
    return prompts.text(_SYSTEM, variables(config, train_rows, tool_format), own)


def variables(config: SearchConfig, train_rows: int, tool_format: str) -> dict[str, Any]:
    """What the system text may write."""
    return facts.of_skills(
        config.configuration,
        config.bounds,
        SKILLS,
        tool_format,
        task=config.task.name,
        model=facts.quoted(config.model.rpartition("/")[2]),
        train_rows=train_rows,
        validate_every_steps=config.validate_every_steps,
        phases_left=facts.phases_left(config.budget.iterations - 1),
        device_hours="" if config.budget.device_hours is None else f"{config.budget.device_hours:g}",
    )


def between_phases(request: ProposalRequest, own: Path | None) -> str:
    """A phase has ended, and the next is due."""
    return prompts.text(_PHASE, facts.of_history(request), own)


def during_phase(request: StopRequest, config: SearchConfig, own: Path | None) -> str:
    """A look at a running phase."""
    return prompts.text(_PHASE, facts.of_running(request, config.configuration), own)
