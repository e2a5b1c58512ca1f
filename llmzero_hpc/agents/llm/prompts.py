"""What a model is asked: system text, user text and images, rendered from the templates in `prompts/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.agents.base import FailureRequest, ProposalRequest, StopRequest

AgentName = Literal["proposer", "early_stopper", "error_analyzer"]
"""Who is asked; also the name of its templates."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture for a model that sees. `name` is a file name (`curves_1.png`), `png` its bytes."""

    name: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything that one call sends, images last and in the order in which the user text names them."""

    system: str
    user: str
    images: tuple[Image, ...] = ()


def render(
    agent: AgentName,
    request: ProposalRequest | StopRequest | FailureRequest,
    *,
    vision: bool = True,
    own: Path | None = None,
    reply_format: str = "",
) -> Prompt:
    """The prompt of an agent for a request; the same request gives the same prompt to the byte.

    Args:
        agent: who is asked.
        request: what about, of the agent's own kind.
        vision: draw pictures, in a process of their own; without, `images` is empty and the text does not speak of any.
        own: a folder with the user's versions of templates; each file in it replaces the shipped one of its name.
        reply_format: how to reply, for endpoints that are not sent a schema; empty leaves that out.

    Raises:
        ConfigurationError: a template cannot be rendered; the message says which, where and why.
        MissingDependencyError: matplotlib is not installed and `vision` is asked for.
    """
    raise NotImplementedError(agent, request, vision, own, reply_format)
