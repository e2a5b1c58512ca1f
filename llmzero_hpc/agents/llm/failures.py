"""What can go wrong between an agent and a usable reply. All are `AgentError`; no message holds a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llmzero_hpc.agents.base import AgentUnavailableError
from llmzero_hpc.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

Feature = Literal["vision", "structured", "tools"]
"""What an endpoint may lack: models that see, replies whose form it enforces, calls of tools."""


class EndpointError(AgentUnavailableError):
    """The endpoint does not answer, or answers nobody at the moment.

    Attributes:
        passing: it may well be gone in seconds, so that the same call is worth repeating.
        timed_out: the time for one reply was used up.
        status: of HTTP, where there was one.
    """

    def __init__(
        self,
        message: str,
        next_step: str = "",
        *,
        retry_seconds: float | None = None,
        passing: bool = False,
        timed_out: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(message, next_step, retry_seconds=retry_seconds)
        self.passing = passing
        self.timed_out = timed_out
        self.status = status


class CapReachedError(AgentUnavailableError):
    """The money or the calls that the search may spend do not cover another call."""


class RequestRefusedError(AgentError):
    """The endpoint will not answer this very request, however often it is asked."""


class UnsupportedError(RequestRefusedError):
    """The endpoint refuses the request for a feature that can be left out.

    Attributes:
        certain: it said so; otherwise leaving it out is worth a try.
    """

    def __init__(self, message: str, feature: Feature, *, certain: bool) -> None:
        super().__init__(message)
        self.feature: Feature = feature
        self.certain = certain


class UnusableReplyError(AgentError):
    """A reply came, but nothing may be made of it.

    Attributes:
        problems: why, one line each, for the model to mend.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
