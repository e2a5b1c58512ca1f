"""The sizes of a model, from its `config.json` alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A dense decoder with gated feed-forward layers, as Qwen, Llama, Mistral and Gemma are.

    Attributes:
        longest_sequence: tokens of prompt and response together; None where the model does not say.
    """

    layers: int
    width: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    longest_sequence: int | None

    @property
    def layer_matrices(self) -> tuple[tuple[int, int], ...]:
        """Input and output width of each linear part of a layer: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_width, self.key_value_heads * self.head_width
        attention = ((self.width, queries), (self.width, keys), (self.width, keys), (queries, self.width))
        return (*attention, *((self.width, self.feed_forward),) * 2, (self.feed_forward, self.width))

    @property
    def layer_parameters(self) -> int:
        """Of one layer, without the few of its norms and biases."""
        return sum(inputs * outputs for inputs, outputs in self.layer_matrices)

    @property
    def embedding_parameters(self) -> int:
        """Of the embedding, and of the output layer where that is not the same."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.layers * self.layer_parameters + self.embedding_parameters

    def adapter_parameters(self, rank: int) -> int:
        """Of an adapter on all linear parts of all layers."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.layer_matrices)

    def cache_bytes(self, tensor_parallel: int) -> int:
        """Bytes of keys and values of one token on each GPU, in 16 bits."""
        heads = max(1, self.key_value_heads // tensor_parallel)
        return 2 * 2 * self.layers * heads * self.head_width


def read_model_shape(folder: Path) -> ModelShape | None:
    """The shape of the model in a folder; None where it is of another kind, or not there."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return _shape(config)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _shape(config: dict[str, Any]) -> ModelShape | None:
    config = config.get("text_config") or config
    if any(key in config for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None  # a mixture of experts
    heads = int(config["num_attention_heads"])
    longest = config.get("max_position_embeddings")
    return ModelShape(
        layers=int(config["num_hidden_layers"]),
        width=int(config["hidden_size"]),
        feed_forward=int(config["intermediate_size"]),
        heads=heads,
        key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_width=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", True)),
        longest_sequence=None if longest is None else int(longest),
    )
