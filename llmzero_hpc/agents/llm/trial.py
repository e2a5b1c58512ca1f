"""Prompts tried on made-up requests: what they come to, and what is wrong with a folder of one's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmzero_hpc import shipped
from llmzero_hpc.agents.llm import facts, prompts, samples, skill_prompts
from llmzero_hpc.agents.llm.prompts import AgentName, Prompt
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.mistakes import closest
from llmzero_hpc.search.node import TransitionKind
from llmzero_hpc.sections import ChainsTask

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.agents.base import FailureRequest, ProposalRequest, StopRequest

_NO_TEMPLATE = "README.md"


@dataclass(frozen=True, slots=True)
class Trial:
    """One prompt on one made-up request."""

    agent: str
    situation: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A user's version of a template; `left_out` are names that the shipped one writes and this one does not."""

    name: str
    left_out: tuple[str, ...]


def situations() -> tuple[tuple[AgentName, str, ProposalRequest | StopRequest | FailureRequest], ...]:
    """Which agent is tried on which made-up request."""
    return (
        ("proposer", "evolve", samples.proposal()),
        ("proposer", "scratch", samples.proposal(TransitionKind.SCRATCH)),
        ("early_stopper", "a run that falls behind", samples.stop()),
        ("error_analyzer", "out of memory", samples.failure()),
    )


def render_all(own: Path | None = None, *, vision: bool = True, reply_format: str = "") -> tuple[Trial, ...]:
    """Every prompt. Raises as `prompts.render`."""
    rendered = tuple(
        Trial(agent, name, prompts.render(agent, request, vision=vision, own=own, reply_format=reply_format))
        for agent, name, request in situations()
    )
    config, between, during = _conversation()
    system = skill_prompts.system(config, between.train_rows, reply_format, own)
    events = {
        "after a phase": skill_prompts.between_phases(between, own),
        "during a phase": skill_prompts.during_phase(during, config, own),
    }
    return (*rendered, *(Trial("skill_agent", name, Prompt(system, event)) for name, event in events.items()))


def own_files(own: Path) -> tuple[OwnFile, ...]:
    """The templates that a folder replaces.

    Raises:
        ConfigurationError: there is no such folder, it replaces nothing, or a file in it is not a template's, cannot be
            parsed, or writes a name that no request has.
    """
    if not own.is_dir():
        raise ConfigurationError(f"{own} is no folder", "name the folder that holds your versions of templates")
    templates = _names_in(shipped.folder("prompts"))
    found = _names_in(own)
    for name in found:
        if name not in templates:
            raise ConfigurationError(f"{own / name} replaces no template", closest(name, templates))
    if not found:
        raise ConfigurationError(f"{own} holds no template", f"the shipped ones are in {shipped.folder('prompts')}")
    config, between, during = _conversation()
    known = {"reply_format", *skill_prompts.variables(config, between.train_rows, "")}.union(
        facts.of_history(between),
        facts.of_running(during, config.configuration),
        *(prompts.variables(request) for _, _, request in situations()),
    )
    return tuple(_compared(own, name, known) for name in found)


def _conversation() -> tuple[SearchConfig, ProposalRequest, StopRequest]:
    """What the skill agent is tried on."""
    request = samples.proposal()
    first = request.phases[0].node
    config = SearchConfig(name="sample", model="models/base", task=ChainsTask())
    history = ((first, request.strategy.up_to(first.checkpoints[-1].step)), (request.parent, request.series))
    return config, replace(request, history=history), samples.stop()


def _compared(own: Path, name: str, known: set[str]) -> OwnFile:
    written = prompts.names_written(name, own)
    for stranger in sorted(written - known):
        raise ConfigurationError(
            f"{own / name} writes {{{{ {stranger} }}}}, which no request has", closest(stranger, sorted(known))
        )
    return OwnFile(name, tuple(sorted(prompts.names_written(name, None) - written)))


def _names_in(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != _NO_TEMPLATE and not path.name.startswith(".")
    )
