"""Which agents a search has."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.errors import MissingDependencyError
from llmzero_hpc.sections import LanguageModelAgents

if TYPE_CHECKING:
    from llmzero_hpc.agents.base import Agents
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.store.search_directory import SearchDirectory


def check_agents(config: SearchConfig) -> None:
    """Whether the agents that `search.yaml` asks for can work here; asks no model.

    Raises:
        ConfigurationError: the key, or the model that is to be served, is not where it is said to be, or a template of
            the user's is wrong.
        MissingDependencyError: an extra of this package is not installed.
    """
    settings = config.agents
    if not isinstance(settings, LanguageModelAgents):
        return
    from llmzero_hpc.agents.llm import trial
    from llmzero_hpc.agents.llm.client import Client
    from llmzero_hpc.agents.llm.secret import read_key
    from llmzero_hpc.agents.llm.serve import context_of

    Client(settings, read_key(settings.api_key_env, settings.api_key_file))
    if settings.serve is not None:
        context_of(settings.serve)
    if settings.vision and find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "agents.vision needs the package matplotlib",
            "pip install 'llmzero-hpc[agents]', or switch vision off",
        )
    if settings.prompts is not None:
        trial.own_files(settings.prompts)
        trial.render_all(settings.prompts, vision=False)


def make_agents(config: SearchConfig, directory: SearchDirectory) -> Agents:
    """The agents that `search.yaml` asks for; they keep their calls in the search's folder.

    Raises:
        ConfigurationError, MissingDependencyError: as `check_agents`.
        StorageError: what was spent so far cannot be read.
    """
    if not isinstance(config.agents, LanguageModelAgents):
        return Playbook()
    check_agents(config)
    from llmzero_hpc.agents.llm.agents import LanguageModel
    from llmzero_hpc.agents.llm.calls import Calls
    from llmzero_hpc.agents.llm.parts import ModelParts
    from llmzero_hpc.trainers.registry import make_trainer

    parts = ModelParts.of(directory, config.agents)
    calls = Calls(parts.settings, parts.client, parts.log, parts.ledger, parts.key)
    trainer = make_trainer(config.trainer)
    return LanguageModel(
        parts.settings, calls, parts.ledger, Playbook(), lambda configuration: trainer.problems(config, configuration)
    )
