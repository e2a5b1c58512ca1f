"""Models by name: folders of the user's, and those that this program makes itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

BUILTIN_CHAINS: Final = "builtin:chains"


def resolve_model(model: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of a model; builds a builtin one on first use and reports `progress` in steps.

    Raises:
        ConfigurationError: there is no such builtin model, or no Hugging Face model in that folder.
        StorageError: the builtin model cannot be kept in the cache directory.
        MissingDependencyError: the builtin model cannot be built without torch and transformers.
    """
    if model.startswith("builtin:"):
        from llmzero_hpc.tasks.chains.cache import ensure_policy
        from llmzero_hpc.tasks.chains.variants import DEMO, VARIANTS

        known = {BUILTIN_CHAINS: DEMO, **{f"{BUILTIN_CHAINS}-{name}": variant for name, variant in VARIANTS.items()}}
        if model not in known:
            raise ConfigurationError(f"model: {model!r} is unknown", f"the builtin models are {', '.join(known)}")
        return ensure_policy(progress, recipe=known[model].recipe)
    folder = Path(model)
    advice = "give the folder of a downloaded Hugging Face model: config.json, weights and tokenizer"
    if not folder.is_dir():
        raise ConfigurationError(f"model: there is no folder {folder}", advice)
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"model: {folder} holds no config.json", advice)
    return folder
