"""The key of an endpoint: read from the environment once, and kept out of every text."""

from __future__ import annotations

import os
import re

from llmzero_hpc.errors import ConfigurationError

_SHORTEST_SECRET = 8
"""Shorter keys are placeholders (`EMPTY`), and words that a text may hold for other reasons."""
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


def read_key(variable: str | None) -> Key:
    """The key in an environment variable; without a variable one that means nothing.

    Raises:
        ConfigurationError: the variable is not set, or does not hold a key.
    """
    if variable is None:
        return Key()
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigurationError(
            f"the environment variable {variable} (agents.api_key_env) is not set",
            f"`export {variable}=...` before you start the controller; the key is never written anywhere",
        )
    if not re.fullmatch(r"[!-~]+", value):
        raise ConfigurationError(
            f"the environment variable {variable} (agents.api_key_env) holds no key: it has spaces or other characters",
            "set it to the key alone",
        )
    return Key(value)
