"""Whether the agents' language model answers this machine, on which the controller calls it."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from llmzero_hpc.agents.llm.secret import read_key
from llmzero_hpc.cluster.doctor_finding import Finding, Verdict
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.sections import LanguageModelAgents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmzero_hpc.config import SearchConfig

_PATIENCE_SECONDS = 10.0
_REFUSED = {401, 403}
_CHECK = "endpoint"


def endpoint_findings(config: SearchConfig) -> Iterator[Finding]:
    """One question for its list of models, which costs nothing; no finding for a search without language models."""
    agents = config.agents
    if not isinstance(agents, LanguageModelAgents):
        return
    if agents.serve is not None:
        yield Finding(_CHECK, Verdict.OK, f"{agents.serve.model} is served by the search itself once it has started")
        return
    try:
        key = read_key(agents.api_key_env, agents.api_key_file).reveal()
    except ConfigurationError as error:
        yield Finding(_CHECK, Verdict.FAILED, error.message, error.next_step)
        return
    request = urllib.request.Request(agents.base_url.rstrip("/") + "/models")  # noqa: S310 - settings allow http only
    if agents.key_place:
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS):  # noqa: S310 - as above
            yield Finding(_CHECK, Verdict.OK, f"{agents.base_url} answers")
    except urllib.error.HTTPError as error:
        if error.code in _REFUSED:
            message = f"{agents.base_url} refuses the key (HTTP {error.code})"
            yield Finding(_CHECK, Verdict.FAILED, message, f"check {agents.key_place or 'whether it wants one'}")
        else:
            yield Finding(_CHECK, Verdict.OK, f"{agents.base_url} answers, but lists no models (HTTP {error.code})")
    except OSError as error:
        message = f"{agents.base_url} cannot be reached from here: {getattr(error, 'reason', error)}"
        advice = "check agents.base_url, and whether this machine needs a proxy (`https_proxy`)"
        yield Finding(_CHECK, Verdict.FAILED, message, advice)
