"""Hydra overrides as text. Values that others chose are quoted here and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Value = bool | int | float | str | Path | None | Sequence[str]

_KEY: Final = re.compile(r"\+{0,2}[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def assignment(key: str, value: Value) -> str:
    """One override: `key='value'`. A `+` before the key adds one that VeRL's files do not have.

    Raises:
        ConfigurationError: the value is text that would not arrive as it is.
        ValueError: the key is no name of a setting.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no name of a setting")
    return f"{key}={_text(key, value)}"


def _text(key: str, value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str | Path):
        return _quoted(key, str(value))
    return "[" + ",".join(_quoted(key, item) for item in value) + "]"


def _quoted(key: str, text: str) -> str:
    if "${" in text:
        raise ConfigurationError(f"{key}: {text!r} holds '${{', which VeRL would take for a reference", "rename it")
    if not text.isprintable():
        raise ConfigurationError(f"{key}: {text!r} holds a character that cannot be printed", "rename it")
    # A backslash is one of Hydra's own only in front of a quote.
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
