"""The tokens of a model folder, read without transformers, whose import takes longer than many a phase."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmzero_hpc.tasks.base import Row


class Vocabulary:
    """The tokenizer of a model folder and the tokens that end a response.

    Attributes:
        ends: tokens that end a response.
        padding: what fills rows; any token will do, as it is never read.

    Raises:
        ConfigurationError: there is no `tokenizer.json`, or nothing says what ends a response.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # noqa: BLE001 - tokenizers raises nothing more special
            raise ConfigurationError(f"model: no tokenizer can be loaded from {folder}: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        settings = [_settings(folder / name) for name in ("generation_config.json", "config.json")]
        declared: Any = next((found for one in settings if (found := one.get("eos_token_id")) is not None), [])
        listed = [declared] if isinstance(declared, int) else list(declared)
        own = _settings(folder / "tokenizer_config.json").get("eos_token")
        end = self._tokenizer.token_to_id(own.get("content") if isinstance(own, dict) else own) if own else None
        if end is None:
            raise ConfigurationError(f"model: the tokenizer of {folder} has no end token (eos_token)")
        self.ends: list[int] = listed if end in listed else [end, *listed]
        self.padding = end

    def prompts(self, rows: Sequence[Row]) -> list[list[int]]:
        """Tokens of prompts.

        Raises:
            ConfigurationError: a prompt is messages, which needs a chat template.
        """
        texts = [row.prompt for row in rows]
        if not all(isinstance(text, str) for text in texts):
            raise ConfigurationError("task: the lean trainer takes prompts as text, not as messages")
        return [encoded.ids for encoded in self._tokenizer.encode_batch(texts)]

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of tokens, as transformers' tokenizers tell it."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=skip_special_tokens)
        return text


def _settings(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
