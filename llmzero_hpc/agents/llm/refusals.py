"""What an endpoint means by refusing a request: whether it is down, busy, wrongly addressed, or lacks a feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmzero_hpc.agents.llm.failures import EndpointError, RequestRefusedError, UnsupportedError

if TYPE_CHECKING:
    from llmzero_hpc.errors import AgentError
    from llmzero_hpc.sections import LanguageModelAgents

TOKEN_LIMITS: Final = ("max_tokens", "max_completion_tokens")
"""Names of the limit of a reply: the one that all servers know, and the one that newer models insist on."""

_VISION = ("image", "multimodal", "multi-modal", "vision")
_STRUCTURED = ("response_format", "json_schema", "json schema", "structured", "guided", "grammar")
_TOO_LONG = ("context length", "context_length", "context window", "input_tokens", "too long", "too many tokens")
_NO_CREDIT = ("quota", "billing", "credit", "balance")
_CREDIT_SECONDS = 900.0
_CONFIGURATION_SECONDS = 300.0
"""How soon to try again what a person has to mend."""
_SERVER_ERROR = 500


def explain(
    status: int,
    said: str,
    settings: LanguageModelAgents,
    *,
    retry_seconds: float | None = None,
    schema: bool = False,
    images: bool = False,
    tools: bool = False,
) -> AgentError:
    """The error for an HTTP status and what came with it.

    Args:
        status: from 400.
        said: the endpoint's words, one line, without the key.
        settings: whom they come from.
        retry_seconds: for how long it wants to be left alone.
        schema: whether the request held one.
        images: whether the request held some.
        tools: whether it offered some.
    """
    where, words = settings.base_url, said.lower()
    told = f"{status}: {said}" if said else str(status)
    match status:
        case 401 | 403:
            key = f"the key in {settings.key_place}" if settings.key_place else "calls without a key"
            return EndpointError(
                f"{where} refuses {key} ({told})",
                "see to agents.api_key_env or agents.api_key_file, and start the controller again",
                retry_seconds=_CONFIGURATION_SECONDS,
            )
        case 404 | 405:
            return EndpointError(
                f"{where} knows no model {settings.model!r}, or is no API ({told})",
                f"check agents.base_url, and agents.model against {where}/models",
                retry_seconds=_CONFIGURATION_SECONDS,
            )
        case 402:
            return _no_credit(where, told)
        case 429 if retry_seconds is None and any(word in words for word in _NO_CREDIT):
            return _no_credit(where, told)
        case 429:
            return EndpointError(f"{where} is asked too often ({told})", retry_seconds=retry_seconds, passing=True)
        case 408 | 409 | 425:
            return EndpointError(f"{where} asks to try again ({told})", retry_seconds=retry_seconds, passing=True)
        case _ if status >= _SERVER_ERROR:
            return EndpointError(
                f"{where} is in trouble ({told})", retry_seconds=retry_seconds, passing=True, status=status
            )
    return _refused(told, words, settings, schema=schema, images=images, tools=tools)


def _no_credit(where: str, told: str) -> EndpointError:
    return EndpointError(f"{where} wants money first ({told})", "see your account there", retry_seconds=_CREDIT_SECONDS)


def wants_other_token_limit(message: str, name: str) -> str | None:
    """The name under which a refusal wants the limit of a reply, if it is another one."""
    return TOKEN_LIMITS[1] if name == TOKEN_LIMITS[0] and TOKEN_LIMITS[1] in message else None


def _refused(
    told: str, words: str, settings: LanguageModelAgents, *, schema: bool, images: bool, tools: bool
) -> RequestRefusedError:
    where = settings.base_url
    if any(word in words for word in _TOO_LONG):
        return RequestRefusedError(
            f"the prompt is too long for {settings.model} ({told})",
            "serve it with a longer context, or shorten prompts",
        )
    message = f"{where} refuses the request ({told})"
    if tools:
        return UnsupportedError(message, "tools", certain="tool" in words)
    may_go_plain = schema and settings.structured == "auto"
    if images and any(word in words for word in _VISION):
        return UnsupportedError(message, "vision", certain=True)
    if may_go_plain and any(word in words for word in _STRUCTURED):
        return UnsupportedError(message, "structured", certain=True)
    if may_go_plain:
        return UnsupportedError(message, "structured", certain=False)
    if images:
        return UnsupportedError(message, "vision", certain=False)
    return RequestRefusedError(message, "the log of calls in the phase's folder agents/ holds what was sent")
