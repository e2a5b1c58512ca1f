"""Who decides in a search, by its method: LLMZero's agents, or a baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.agents import registry as agents
from llmzero_hpc.agents.base import Proposal
from llmzero_hpc.baselines.population import PopulationTraining
from llmzero_hpc.baselines.schedules import FixedStrategy, guidebook_phases
from llmzero_hpc.baselines.static import Grid, Practitioner, RandomSearch
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.method_sections import (
    AshaMethod,
    GridMethod,
    GuidebookMethod,
    LLMZeroMethod,
    PbtMethod,
    RandomMethod,
    SkillAgentMethod,
    TpeMethod,
    TransferMethod,
)
from llmzero_hpc.search.configuration import Bounds
from llmzero_hpc.search.node import Rationale
from llmzero_hpc.sections import LanguageModelAgents
from llmzero_hpc.trainers.registry import make_trainer

if TYPE_CHECKING:
    from llmzero_hpc.agents.base import Agents
    from llmzero_hpc.baselines.base import Baseline
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.store.search_directory import SearchDirectory


def make_agents(config: SearchConfig, directory: SearchDirectory) -> Agents:
    """Those who decide in this search; language models keep their calls in its folder.

    Raises:
        ConfigurationError, MissingDependencyError, StorageError: as `agents.registry.make_agents`.
    """
    if isinstance(config.method, SkillAgentMethod):
        return _skill_agent(config, directory)
    return _baseline(config) or agents.make_agents(config, directory)


def check_method(config: SearchConfig) -> None:
    """Whether the method that `search.yaml` asks for can work here.

    Raises:
        ConfigurationError: one of its settings, or the key of a language model, cannot work.
        MissingDependencyError: an extra of this package is not installed.
    """
    baseline = _baseline(config)
    if baseline is not None:
        baseline.check()
        return
    if isinstance(config.method, SkillAgentMethod):
        _settings_of_skill_agent(config)
    elif isinstance(config.method, LLMZeroMethod) and not config.method.tree and config.rules.single_stage:
        raise ConfigurationError(
            "method.tree: false continues phases, and rules.single_stage: true continues none", "leave one of them out"
        )
    agents.check_agents(config)


def first_proposal(config: SearchConfig, seed: int) -> Proposal:
    """What node 0 trains with.

    Raises:
        AgentError: a baseline has nothing that could be trained.
    """
    baseline = _baseline(config)
    if baseline is not None:
        return baseline.first((), seed)
    rationale = Rationale(author="default", diagnosis="The search starts with the configuration of search.yaml.")
    return Proposal(config.configuration, None, rationale)


def with_strategy(config: SearchConfig) -> SearchConfig:
    """A search with the phases of the strategy file that it names, where it names one.

    Its bounds let every phase be as short as it was: one that was ended early, or left at an earlier checkpoint, has
    fewer epochs than one may be planned with.

    Raises:
        ConfigurationError: the file is not there, or no strategy.
    """
    method = config.method
    if not isinstance(method, TransferMethod):
        return config
    phases = method.phases
    if method.strategy is not None:
        from llmzero_hpc.store.strategy_file import read_strategy

        phases = read_strategy(method.strategy).configurations()
    bounds, epochs = config.bounds, config.bounds.get("epochs", Bounds())
    if epochs.low is not None:
        shortest = min(phase.epochs for phase in phases)
        bounds = bounds | {"epochs": replace(epochs, low=min(epochs.low, shortest))}
    return config.model_copy(update={"method": method.model_copy(update={"phases": phases}), "bounds": bounds})


def _settings_of_skill_agent(config: SearchConfig) -> LanguageModelAgents:
    if not isinstance(config.agents, LanguageModelAgents):
        raise ConfigurationError(
            "method skill_agent needs a language model, and agents has none",
            "set agents.base_url and agents.model; docs/endpoints.md says what an endpoint must be able to do",
        )
    if config.max_parallel_phases > 1:
        raise ConfigurationError(
            "method skill_agent has one conversation, so one phase at a time", "set max_parallel_phases to 1"
        )
    return config.agents


def _skill_agent(config: SearchConfig, directory: SearchDirectory) -> Agents:
    settings = _settings_of_skill_agent(config)
    agents.check_agents(config)
    from llmzero_hpc.agents.llm.parts import ModelParts
    from llmzero_hpc.baselines.skills.agent import SkillAgent

    trainer = make_trainer(config.trainer)
    return SkillAgent(
        config,
        ModelParts.of(directory, settings),
        directory.record.train_rows,
        lambda configuration: trainer.problems(config, configuration),
    )


def _baseline(config: SearchConfig) -> Baseline | None:
    """The baseline of a search; None where language models or the playbook decide."""
    method = config.method
    if isinstance(method, LLMZeroMethod | SkillAgentMethod):
        return None
    trainer = make_trainer(config.trainer)

    def problems(configuration: Configuration) -> list[str]:
        return configuration.problems(config.bounds) or trainer.problems(config, configuration)

    if isinstance(method, GridMethod):
        return Grid(config, problems, method)
    if isinstance(method, RandomMethod):
        return RandomSearch(config, problems, method.ranges)
    if isinstance(method, GuidebookMethod):
        return FixedStrategy(config, problems, guidebook_phases(config.configuration, method))
    if isinstance(method, TransferMethod):
        return FixedStrategy(config, problems, method.phases)
    if isinstance(method, PbtMethod):
        return PopulationTraining(config, problems, method)
    if isinstance(method, TpeMethod | AshaMethod):
        from llmzero_hpc.baselines.optimizers import Asha, Tpe

        return Tpe(config, problems, method) if isinstance(method, TpeMethod) else Asha(config, problems, method)
    return Practitioner(config, problems, method)
