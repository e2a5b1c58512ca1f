"""The rehearsal trainer: made-up curves through the very same files and processes. Nothing is trained."""

from llmzero_hpc.trainers.rehearsal.trainer import RehearsalTrainer

__all__ = ["RehearsalTrainer"]
