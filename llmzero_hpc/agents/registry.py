"""Which agents a search has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.sections import LanguageModelAgents

if TYPE_CHECKING:
    from llmzero_hpc.agents.base import Agents
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.store.search_directory import SearchDirectory


def check_agents(config: SearchConfig) -> None:
    """Whether the agents that `search.yaml` asks for can work here; asks no model.

    Raises:
        ConfigurationError: the key is not where it is said to be.
        MissingDependencyError: an extra of this package is not installed.
    """
    if isinstance(config.agents, LanguageModelAgents):
        from llmzero_hpc.agents.llm.client import Client
        from llmzero_hpc.agents.llm.secret import read_key

        Client(config.agents, read_key(config.agents.api_key_env))


def make_agents(config: SearchConfig, directory: SearchDirectory) -> Agents:
    """The agents that `search.yaml` asks for; they keep their calls in the search's folder.

    Raises:
        ConfigurationError: the key is not where it is said to be.
        MissingDependencyError: an extra of this package is not installed.
        StorageError: what was spent so far cannot be read.
    """
    settings = config.agents
    if not isinstance(settings, LanguageModelAgents):
        return Playbook()
    from llmzero_hpc.agents.llm.agents import LanguageModel
    from llmzero_hpc.agents.llm.calls import Calls
    from llmzero_hpc.agents.llm.client import Client
    from llmzero_hpc.agents.llm.ledger import Ledger
    from llmzero_hpc.agents.llm.secret import read_key
    from llmzero_hpc.store.agent_calls import CallLog
    from llmzero_hpc.trainers.registry import make_trainer

    key = read_key(settings.api_key_env)
    log = CallLog(directory)
    ledger = Ledger(settings, config.budget.api_dollars, log.spending())
    calls = Calls(settings, Client(settings, key), log, ledger, key)
    trainer = make_trainer(config.trainer)
    return LanguageModel(
        settings, calls, ledger, Playbook(), lambda configuration: trainer.problems(config, configuration)
    )
