"""The task of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.sections import ChainsTask, TaskConfig

if TYPE_CHECKING:
    from llmzero_hpc.tasks.base import Task


def load_task(config: TaskConfig) -> Task:
    """The task that the configuration names; its files are read when its rows are.

    Raises:
        ConfigurationError: the user's reward file cannot be loaded.
    """
    if isinstance(config, ChainsTask):
        from llmzero_hpc.tasks.chains.task import ChainArithmetic

        return ChainArithmetic(config.variant)
    from llmzero_hpc.tasks.files import FilesDataset

    return FilesDataset(config)
