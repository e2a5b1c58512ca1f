"""Creating a search: everything that can be known to be wrong is found before the first phase is submitted."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.baselines.registry import check_method, first_proposal, with_strategy
from llmzero_hpc.cluster.profiles import read_profile, resolved
from llmzero_hpc.cluster.registry import make_cluster
from llmzero_hpc.controller.questions import root_node, seed_of
from llmzero_hpc.controller.server_shape import check_server
from llmzero_hpc.controller.submission import Submission
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord
from llmzero_hpc.trainers.registry import make_trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.config import SearchConfig


def placed(config: SearchConfig) -> SearchConfig:
    """A search with the hardware of its cluster profile, and the strategy that it replays, where it has such.

    Raises:
        ConfigurationError: the profile is missing or wrong, or contradicts the search; or the strategy file is.
    """
    config = with_strategy(config)
    settings = config.cluster
    if not isinstance(settings, SlurmClusterConfig):
        return config
    return resolved(config, read_profile(settings.profile, settings.profiles))


@dataclass(frozen=True, slots=True)
class FirstJob:
    """Node 0 as it would be submitted.

    Attributes:
        script: the job's.
        start: the cluster's estimate, for people.
        framework_command: what trains in it, where that is another program; otherwise empty.
    """

    script: str
    start: str
    framework_command: tuple[str, ...]


def preview(config: SearchConfig, root: Path, train_rows: int, now: float) -> FirstJob:
    """The job of node 0 as it would be submitted; nothing is kept.

    Raises:
        ClusterError: the cluster would refuse it.
        ConfigurationError, MissingDependencyError: as `make_cluster`.
    """
    with tempfile.TemporaryDirectory(prefix="llmzero-hpc-") as scratch:
        place = Path(scratch).resolve() / root.name
        directory = SearchDirectory.create(place, SearchRecord.new(config, train_rows, now))
        cluster = make_cluster(config, place)
        submission = Submission(directory, cluster, make_trainer(config.trainer), lambda: now)
        node = root_node(config, train_rows, now, first_proposal(config, seed_of(config.seed, 0)))
        shown = submission.preview(Tree((node,)), node)
        command = submission.framework_command(Tree((node,)), node)

        def in_place(text: str) -> str:
            return text.replace(str(place), str(root.resolve()))

        return FirstJob(in_place(shown.script), shown.estimate, tuple(map(in_place, command)))


def checked(config: SearchConfig) -> int:
    """Check a configuration as far as this machine can; returns the number of training rows.

    Raises:
        ConfigurationError: model, data, reward, the agents' key, the method or a value cannot work.
        MissingDependencyError: an extra of this package is not installed.
    """
    check_method(config)
    check_server(config)
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
    config = placed(config)
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
    config = placed(config)
    changed = [
        key for key in type(config).model_fields if getattr(config, key) != getattr(directory.record.config, key)
    ]
    if changed:
        raise ConfigurationError(
            f"{root} holds a search that was started with other settings ({', '.join(changed)})",
            f"give the new one another `name`, or go on with the old one: `llmzero-hpc run {root}`",
        )
    return directory
