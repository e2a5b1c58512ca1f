"""Filling in the shell templates of `slurm_templates/`, or the user's own in their place."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from llmzero_hpc import shipped
from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def rendered(name: str, own: Path | None, **values: object) -> str:
    """The template of that name with these values; its filters are those of Jinja, `quote` and `variables`.

    Raises:
        ConfigurationError: there is no such template, or something is wrong in it.
    """
    from jinja2 import Environment, StrictUndefined, TemplateError

    path = shipped.path("slurm_templates", name, own)
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML
    )
    environment.filters["quote"] = shlex.quote
    environment.filters["variables"] = _inside_double_quotes
    try:
        return environment.from_string(path.read_text(encoding="utf-8")).render(**values)
    except (TemplateError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        where = f" line {line}" if line else ""
        raise ConfigurationError(
            f"{path}{where}: {' '.join(str(error).split())}", "slurm_templates/README.md"
        ) from None


def _inside_double_quotes(path: Path) -> str:
    """A path between double quotes, where the shell replaces its $VARIABLES; a job without one of them ends."""
    return re.sub(r"\$(\w+)", r"${\1:?}", str(path))
