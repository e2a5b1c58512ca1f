"""Trainers by the name they have in `search.yaml`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from llmzero_hpc.trainers.base import Trainer


def make_trainer(name: str) -> Trainer:
    """A trainer; nothing heavy is imported.

    Raises:
        ConfigurationError: there is none of that name.
    """
    if name == "trl":
        from llmzero_hpc.trainers.trl.trainer import TrlTrainer

        return TrlTrainer()
    if name == "verl":
        from llmzero_hpc.trainers.verl.trainer import VerlTrainer

        return VerlTrainer()
    if name == "lean":
        from llmzero_hpc.trainers.lean.trainer import LeanTrainer

        return LeanTrainer()
    if name == "rehearsal":
        from llmzero_hpc.trainers.rehearsal import RehearsalTrainer

        return RehearsalTrainer()
    raise ConfigurationError(f"trainer: {name!r} is unknown", "the trainers are 'verl', 'trl', 'lean' and 'rehearsal'")
