"""`config.json` of the dense models of the Qwen3 family, as far as sizes go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmzero_hpc.tasks.chains.tokenizer import make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

_FAMILY = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 128,
    "num_key_value_heads": 8,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}


def qwen3(width: int, feed_forward: int, layers: int, heads: int, *, tied: bool = True) -> dict[str, Any]:
    return {
        **_FAMILY,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
    }


QWEN3 = {
    "0.6B": qwen3(1024, 3072, 28, 16),
    "1.7B": qwen3(2048, 6144, 28, 16),
    "4B": qwen3(2560, 9728, 36, 32),
    "8B": qwen3(4096, 12288, 36, 32, tied=False),
}


def write_model(folder: Path, config: dict[str, Any]) -> Path:
    """A model without its weights, and with the tokenizer of the chains task."""
    make_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder
