"""What the job of a language model's server runs on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.agents.llm.serve import context_of
from llmzero_hpc.cluster.job_script import interpreter
from llmzero_hpc.cluster.profiles import read_profile
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.sections import LanguageModelAgents, Serve, SlurmClusterConfig

if TYPE_CHECKING:
    from llmzero_hpc.config import SearchConfig


@dataclass(frozen=True, slots=True)
class ServerShape:
    """GPUs and CPUs of the job, and the Python that has vLLM. `charged` is how many devices the search pays for."""

    gpus: int
    cpus: int
    charged: int
    python: str


def shape_of(config: SearchConfig, serve: Serve) -> ServerShape:
    """What the server of a search runs on.

    A search whose phases run on GPUs pays for the server's GPUs alone, another one for its GPUs, or else its CPUs.

    Raises:
        ConfigurationError: its cluster profile is missing or wrong, or asks for several machines.
    """
    cluster = config.cluster
    if isinstance(cluster, SlurmClusterConfig):
        name = serve.profile or cluster.profile
        profile = read_profile(name, cluster.profiles)
        if profile.nodes > 1:
            raise ConfigurationError(
                f"the cluster profile {name!r} asks for {profile.nodes} machines, and a model's server runs on one",
                "name a profile of one machine in agents.serve.profile",
            )
        gpus, cpus, python = profile.gpus_per_node, profile.cpus_per_node or 1, interpreter(profile)
    elif serve.profile is not None:
        raise ConfigurationError(
            "agents.serve.profile is for searches on Slurm", "remove it; agents.serve.gpu_ids chooses GPUs here"
        )
    else:
        gpus, cpus, python = len(serve.gpu_ids), config.hardware.threads, sys.executable
    charged = gpus if config.hardware.gpus else gpus or cpus
    return ServerShape(gpus, cpus, charged, str(serve.python or python))


def check_server(config: SearchConfig) -> None:
    """Whether the server that a search asks for, if it does, can be started as far as this machine can tell.

    Raises:
        ConfigurationError: it cannot.
    """
    agents = config.agents
    if isinstance(agents, LanguageModelAgents) and agents.serve is not None:
        context_of(agents.serve)
        shape_of(config, agents.serve)
