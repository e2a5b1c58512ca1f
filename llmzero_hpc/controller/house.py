"""The parts that a controller works with, chosen once when it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmzero_hpc.agents.base import Agents
from llmzero_hpc.cluster.base import Cluster
from llmzero_hpc.controller.desk import Desk
from llmzero_hpc.controller.server import Server
from llmzero_hpc.controller.submission import Submission
from llmzero_hpc.controller.views import Views
from llmzero_hpc.store.lease import Lease
from llmzero_hpc.store.search_directory import SearchDirectory
from llmzero_hpc.trainers.base import Trainer


@dataclass(frozen=True, slots=True)
class House:
    """The parts that a controller works with."""

    directory: SearchDirectory
    lease: Lease
    cluster: Cluster
    trainer: Trainer
    agents: Agents
    desk: Desk
    submission: Submission
    views: Views
    clock: Callable[[], float]
    server: Server | None = None
    """Of the agents' language model, where the search serves its own."""
