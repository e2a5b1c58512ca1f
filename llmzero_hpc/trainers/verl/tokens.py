"""Prompts to tokens, and tokens that end a response."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXT_ROLE: Final = "text"
"""Role of the only message of a prompt that is plain text; VeRL's rows hold messages in any case."""


def prompt_tokens(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Tokens of a prompt: of text as it is, of messages through the chat template."""
    if messages[0]["role"] == TEXT_ROLE:
        tokens = tokenizer(messages[0]["content"])["input_ids"]
    else:
        plain = [{"role": message["role"], "content": message["content"]} for message in messages]
        tokens = tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_dict=True)["input_ids"]
    return [int(token) for token in tokens]


def end_tokens(folder: str, tokenizer: Any) -> tuple[int, ...]:
    """Tokens after which the model in a folder stops: the tokenizer's own, then those of its settings."""
    return tuple(dict.fromkeys((int(tokenizer.eos_token_id), *_declared(folder))))


@cache
def _declared(folder: str) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        try:
            declared = json.loads((Path(folder) / name).read_bytes()).get("eos_token_id")
        except (OSError, ValueError):
            continue
        if declared is not None:
            return (declared,) if isinstance(declared, int) else tuple(declared)
    return ()
