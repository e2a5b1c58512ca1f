"""Files that people may read and replace: `prompts/` and `slurm_templates/`, at the top of the source, in the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from llmzero_hpc.errors import ConfigurationError

Kind = Literal["prompts", "slurm_templates"]

_PACKAGE = Path(__file__).parent


def folder(kind: Kind) -> Path:
    """Where the shipped files are: beside this package in its source, inside it when installed from a wheel."""
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def path(kind: Kind, name: str, own: Path | None = None) -> Path:
    """The file of that name: the user's in `own`, if there is one, or else the shipped one.

    Raises:
        ConfigurationError: there is neither.
    """
    for place in (own, folder(kind)):
        if place is not None and (place / name).is_file():
            return place / name
    raise ConfigurationError(f"{kind} has no file {name}", f"the shipped ones are in {folder(kind)}")
