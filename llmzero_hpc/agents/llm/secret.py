"""The key of an endpoint: read once, from the environment or a private file, and kept out of every text."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_SHORTEST_SECRET = 8
"""Shorter keys are placeholders (`EMPTY`), and words that a text may hold for other reasons."""
_MOST_BYTES = 10_000
_UNASKED = "none"
"""What is sent where the endpoint asks for no key: the client insists on one."""


class Key:
    """A key that shows itself to nobody but the client."""

    def __init__(self, value: str = _UNASKED) -> None:
        self._value = value

    def __repr__(self) -> str:
        """Nothing of it."""
        return "Key(***)"

    def reveal(self) -> str:
        """The key itself; only for the client."""
        return self._value

    def removed_from(self, text: str) -> str:
        """The text without the key."""
        return text if len(self._value) < _SHORTEST_SECRET else text.replace(self._value, "***")


def read_key(variable: str | None, file: Path | None = None) -> Key:
    """The key in an environment variable or a file; without either one that means nothing.

    Raises:
        ConfigurationError: there is none, it is no key, or others may read the file.
    """
    if file is not None:
        return Key(_checked(_private_text(file), f"{file} (agents.api_key_file)", "write it there"))
    if variable is None:
        return Key()
    place = f"the environment variable {variable} (agents.api_key_env)"
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigurationError(
            f"{place} is not set",
            f"`export {variable}=...` before you start the controller; the key is never written anywhere",
        )
    return Key(_checked(value, place, "set it to the key alone"))


def _checked(value: str, place: str, next_step: str) -> str:
    if not value:
        raise ConfigurationError(f"{place} is empty", f"{next_step}: the key alone, on one line")
    if not re.fullmatch(r"[!-~]+", value):
        raise ConfigurationError(f"{place} holds no key: it has spaces or other characters", next_step)
    return value


def _private_text(file: Path) -> str:
    """What stands in a file that is one's own and that nobody else may read."""
    try:
        # A pipe that nobody writes to would keep the controller waiting.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        # Without the name: whoever mistakes this setting may have written the key itself.
        reason = getattr(error, "strerror", None) or "it is no path"
        raise ConfigurationError(
            f"the file that agents.api_key_file names cannot be read: {reason}",
            "name a file that holds the key alone, as ~/.config/llmzero-hpc/key",
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{file} (agents.api_key_file) is no file", "name a file that holds the key alone")
        if status.st_uid != os.geteuid():
            raise ConfigurationError(
                f"{file} (agents.api_key_file) belongs to somebody else", "keep the key in a file of your own"
            )
        if status.st_mode & 0o077:
            raise ConfigurationError(
                f"{file} (agents.api_key_file) can be read by others", f"`chmod 600 {file}`, and consider a new key"
            )
        return os.read(descriptor, _MOST_BYTES).decode("ascii", errors="replace").strip()
    finally:
        os.close(descriptor)
