"""Settings, parts and good replies for the tests of agents that ask a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmzero_hpc.agents.llm.agents import LanguageModel
from llmzero_hpc.agents.llm.calls import Calls
from llmzero_hpc.agents.llm.client import Client
from llmzero_hpc.agents.llm.gate import Patience
from llmzero_hpc.agents.llm.ledger import Ledger
from llmzero_hpc.agents.llm.secret import Key
from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.sections import LanguageModelAgents
from llmzero_hpc.store.agent_calls import CallLog
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.agents.base import StopRequest

KEY = "sk-very-secret-0123456789"
QUICK = Patience(first_pause=0.01, longest_pause=0.5, first_rest=0.2, longest_rest=0.4)
PRICES = {"input": 2.0, "output": 10.0, "cached_input": 0.5}


def settings(url: str, **changes: Any) -> LanguageModelAgents:
    """Of a model at `url`, without pictures, at prices."""
    values = {"base_url": url, "model": "tiny", "vision": False, "prices": PRICES, "max_output_tokens": 1000}
    return LanguageModelAgents.model_validate(values | changes)


def config(url: str, **changes: Any) -> SearchConfig:
    """A rehearsed search with a model for agents; `agents` in `changes` is merged in."""
    agents = {"base_url": url, "model": "tiny", "vision": False, "prices": PRICES, **changes.pop("agents", {})}
    values: dict[str, Any] = {
        "name": "asked",
        "trainer": "rehearsal",
        "model": "none",
        "task": {"name": "chains"},
        "agents": agents,
        "live_views": False,
    }
    return SearchConfig.model_validate(values | changes)


def search_directory(root: Path, search: SearchConfig) -> SearchDirectory:
    """A search that has just been created."""
    return SearchDirectory.create(root, SearchRecord.new(search, 4096, 0.0))


def agents(directory: SearchDirectory, patience: Patience = QUICK, **parts: Any) -> LanguageModel:
    """The agents of a search, quick to repeat."""
    search = directory.record.config
    own = search.agents
    assert isinstance(own, LanguageModelAgents)
    key, log = Key(KEY), CallLog(directory)
    ledger = Ledger(own, search.budget.api_dollars, log.spending())
    client = Client(own, key, patience, **parts)
    return LanguageModel(own, Calls(own, client, log, ledger, key), ledger, Playbook(), lambda _: [])


def proposer_reply(resume_step: int | None = 60, **changes: Any) -> dict[str, Any]:
    """A good proposal."""
    return {
        "diagnosis": "The run is healthy and still improving.",
        "observations": [
            {
                "metric": "val_score", "first_step": 5, "last_step": 60, "statistic": "last", "value": 0.6,
                "meaning": "still rising",
            }
        ],
        "changes": [{"name": "learning_rate", "value": 3e-5, "why": "go slower"}],
        "overrides": [],
        "resume_step": resume_step,
        "epochs": 1.0,
        **changes,
    }  # fmt: skip


def stopper_reply(request: StopRequest | None = None, decision: str = "STOP", **changes: Any) -> dict[str, Any]:
    """A good judgement; it cites the validation scores of the request."""
    points = request.series.points("val_score") if request else ()
    return {
        "reason": "It can no longer catch up.",
        "validation_scores": [{"step": step, "score": round(score, 3)} for step, score in points],
        "decision": decision,
        **changes,
    }


def analyzer_reply(**changes: Any) -> dict[str, Any]:
    """A good repair."""
    return {
        "why": "The batch did not fit.",
        "verdict": "configuration",
        "changes": [{"name": "batch_size", "value": 64, "why": "half the memory"}],
        "overrides": [],
        "resume_step": None,
        **changes,
    }


def said(reply: object) -> str:
    """A reply as text."""
    return json.dumps(reply)
