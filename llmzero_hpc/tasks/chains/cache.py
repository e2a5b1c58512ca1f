"""Where the policy of the chains task is kept: built once for a user, on first use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.errors import StorageError
from llmzero_hpc.tasks.chains.policy import RECIPE, Recipe, build_policy
from llmzero_hpc.tasks.chains.tokenizer import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Callable


def cache_directory() -> Path:
    """`$LLMZERO_CACHE`, else `$XDG_CACHE_HOME/llmzero-hpc`, else `~/.cache/llmzero-hpc`; may not exist."""
    if own := os.environ.get("LLMZERO_CACHE"):
        return Path(own).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "llmzero-hpc"


def policy_folder(*, recipe: Recipe = RECIPE) -> Path:
    """The folder of the policy, built or not. Its name changes with the recipe and the vocabulary.

    Versions of torch are left out on purpose: an upgrade must not change the base model under a search.
    """
    determining = json.dumps([asdict(recipe), VOCABULARY], sort_keys=True)
    return cache_directory() / f"chains-{hashlib.sha256(determining.encode()).hexdigest()[:16]}"


def ensure_policy(progress: Callable[[int, int], None] | None = None, *, recipe: Recipe = RECIPE) -> Path:
    """The folder of the policy, built now if it was not; takes a minute or two then.

    It appears under its name only when complete. Two processes may both build it; the first to finish wins.

    Raises:
        StorageError: the cache directory cannot be written.
        MissingDependencyError: torch or transformers is not installed.
    """
    folder = policy_folder(recipe=recipe)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            build_policy(unfinished, progress, recipe=recipe)
            _publish(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"the policy cannot be kept in {folder.parent}: {error.strerror or error}",
            "set LLMZERO_CACHE to a folder that you can write to",
        ) from None
    return folder


def _publish(unfinished: Path, folder: Path) -> None:
    for file in unfinished.iterdir():
        _sync(file)
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
