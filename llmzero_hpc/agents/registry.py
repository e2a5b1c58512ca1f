"""Which agents a search has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.agents.playbook import Playbook

if TYPE_CHECKING:
    from llmzero_hpc.agents.base import Agents
    from llmzero_hpc.config import SearchConfig


def make_agents(config: SearchConfig) -> Agents:
    """The agents that `search.yaml` asks for."""
    return {"playbook": Playbook}[config.agents.kind]()
