"""Creating a search: everything that can be known to be wrong is found before the first phase is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord
from llmzero_hpc.trainers.registry import make_trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.config import SearchConfig


def checked(config: SearchConfig) -> int:
    """Check a configuration as far as this machine can; returns the number of training rows.

    Raises:
        ConfigurationError: model, data, reward or a value cannot work.
        MissingDependencyError: an extra of this package is not installed.
    """
    trainer = make_trainer(config.trainer)
    problems = trainer.problems(config, config.configuration)
    if problems:
        raise ConfigurationError(f"configuration.{problems[0]}", "change it in search.yaml")
    trainer.check(config)
    return trainer.train_rows(config)


def create(
    config: SearchConfig, root: Path, now: float, check: Callable[[SearchConfig], int] = checked
) -> SearchDirectory:
    """A new search in `root`, checked by `check` (which may do it elsewhere) and frozen.

    Raises:
        ConfigurationError, MissingDependencyError: as `checked`; or `root` holds a search already.
        StorageError: the folder cannot be written.
    """
    return SearchDirectory.create(root, SearchRecord.new(config, check(config), now))


def opened_or_created(
    config: SearchConfig, root: Path, now: float, check: Callable[[SearchConfig], int] = checked
) -> SearchDirectory:
    """The search in `root` if it is this very one, or a new one.

    Raises:
        ConfigurationError: `root` holds a search with other settings; or as `create`.
    """
    if not (root / "search.json").exists():
        return create(config, root, now, check)
    directory = SearchDirectory.open(root)
    changed = [
        key for key in type(config).model_fields if getattr(config, key) != getattr(directory.record.config, key)
    ]
    if changed:
        raise ConfigurationError(
            f"{root} holds a search that was started with other settings ({', '.join(changed)})",
            f"give the new one another `name`, or go on with the old one: `llmzero-hpc run {root}`",
        )
    return directory
