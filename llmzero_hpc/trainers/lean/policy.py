"""A Qwen3-shaped policy in plain torch: its weights, with the adapter merged, whole forward passes, and cached ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Tensor = Any
"""A `torch.Tensor`, whose operations are not typed well enough to check."""

PROJECTIONS: Final = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
"""The linear layers of a block, and the part of it that holds each; they may carry an adapter."""
_CACHE_BLOCK: Final = 16
"""Positions by which a cache grows at a time."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the configuration of a model says of its weights."""

    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    rope_theta: float
    epsilon: float
    positions: int
    tied: bool


def read_shape(folder: Path) -> Shape:
    """The shape of the model in a folder.

    Raises:
        ConfigurationError: it is none that this trainer knows.
    """
    try:
        found = json.loads((folder / "config.json").read_bytes())
        rope = found.get("rope_parameters") or {}
        known = (
            found["model_type"] == "qwen3"
            and found.get("hidden_act", "silu") == "silu"
            and not found.get("attention_bias")
            and not found.get("use_sliding_window")
            and not found.get("rope_scaling")
            and rope.get("rope_type", "default") == "default"
        )
        shape = Shape(
            layers=found["num_hidden_layers"],
            heads=found["num_attention_heads"],
            key_value_heads=found["num_key_value_heads"],
            head_width=found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"],
            rope_theta=float(rope.get("rope_theta") or found.get("rope_theta") or 10000.0),
            epsilon=found["rms_norm_eps"],
            positions=found["max_position_embeddings"],
            tied=bool(found.get("tie_word_embeddings")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"model: {folder / 'config.json'} cannot be read: {error}") from None
    if not known:
        raise ConfigurationError(
            f"model: the lean trainer knows plain Qwen3 models, and {folder} holds another", "take `trainer: trl`"
        )
    return shape


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of the model in a folder by their names there, float32.

    Raises:
        ConfigurationError: they are not there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            weights.update((name, tensor.float()) for name, tensor in load_file(file).items())
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"model: the weights in {folder} cannot be read: {error}") from None
    if "model.embed_tokens.weight" not in weights:
        raise ConfigurationError(f"model: {folder} holds no weights (*.safetensors) of a Qwen3 model")
    return weights


def projection(layer: int, name: str) -> str:
    """The name of a linear layer in the model."""
    return f"model.layers.{layer}.{PROJECTIONS[name]}.{name}"


@dataclass(frozen=True, slots=True)
class Block:
    """Weights of one layer, those that read the same input in one matrix."""

    query_key_value: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor
    before: Tensor
    between: Tensor
    query_norm: Tensor
    key_norm: Tensor


class Policy:
    """A model with the changes of an adapter merged into its weights; gradients reach the changes.

    Args:
        shape: of the model.
        weights: of the base model.
        changes: what is added to the weights of linear layers, by the layers' names.

    Attributes:
        blocks: its layers.
        cosine, sine: of the angles that each position turns queries and keys by.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, Tensor], changes: Mapping[str, Tensor]) -> None:
        def linear(layer: int, *names: str) -> Tensor:
            parts = []
            for name in names:
                place = projection(layer, name)
                weight = weights[f"{place}.weight"]
                parts.append(weight + changes[place] if place in changes else weight)
            return torch.cat(parts) if len(parts) > 1 else parts[0]

        def norm(layer: int, name: str) -> Tensor:
            return weights[f"model.layers.{layer}.{name}.weight"]

        self.shape = shape
        self.embedding = weights["model.embed_tokens.weight"]
        self._head = self.embedding if shape.tied else weights["lm_head.weight"]
        self._norm = weights["model.norm.weight"]
        self.blocks = [
            Block(
                linear(layer, "q_proj", "k_proj", "v_proj"),
                linear(layer, "o_proj"),
                linear(layer, "gate_proj", "up_proj"),
                linear(layer, "down_proj"),
                norm(layer, "input_layernorm"),
                norm(layer, "post_attention_layernorm"),
                norm(layer, "self_attn.q_norm"),
                norm(layer, "self_attn.k_norm"),
            )
            for layer in range(shape.layers)
        ]
        # One table for all lengths: a table for each would differ in its last bits.
        turns = shape.rope_theta ** (-torch.arange(0, shape.head_width, 2).float() / shape.head_width)
        angles = torch.outer(torch.arange(shape.positions).float(), turns).repeat(1, 2)
        self.cosine, self.sine = angles.cos(), angles.sin()

    def hidden(self, tokens: Tensor) -> Tensor:
        """The last hidden states of rows that are padded on the right, where causal attention needs no mask."""
        rows, length = tokens.shape
        cosine, sine = self.cosine[:length], self.sine[:length]
        groups = self.shape.heads // self.shape.key_value_heads
        states = self.embedding[tokens]
        for block in self.blocks:
            query, key, value = self.attended(block, states, cosine, sine)
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            states = self.ended(block, states, mixed.transpose(1, 2).reshape(rows, length, -1))
        return self.last(states)

    def last(self, states: Tensor) -> Tensor:
        """The last hidden states, from what the last block gave."""
        return self.normed(states, self._norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the next token, from last hidden states."""
        return functional.linear(hidden, self._head)

    def normed(self, states: Tensor, weight: Tensor) -> Tensor:
        """Root-mean-square normalisation."""
        return functional.rms_norm(states, weight.shape, weight, self.shape.epsilon)

    def attended(self, block: Block, states: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, by head, with their positions turned in."""
        rows, length, _ = states.shape
        shape = self.shape
        key_width = shape.key_value_heads * shape.head_width
        mixed = functional.linear(self.normed(states, block.before), block.query_key_value)
        query, key, value = mixed.split([shape.heads * shape.head_width, key_width, key_width], -1)
        query = self.normed(query.view(rows, length, -1, shape.head_width), block.query_norm).transpose(1, 2)
        key = self.normed(key.view(rows, length, -1, shape.head_width), block.key_norm).transpose(1, 2)
        value = value.view(rows, length, -1, shape.head_width).transpose(1, 2)
        return _turned(query, cosine, sine), _turned(key, cosine, sine), value

    def ended(self, block: Block, states: Tensor, mixed: Tensor) -> Tensor:
        """What a block makes of its input and what its attention found."""
        states = states + functional.linear(mixed, block.output)
        gate, up = functional.linear(self.normed(states, block.between), block.gate_up).chunk(2, -1)
        return states + functional.linear(functional.silu(gate) * up, block.down)


class CachedPolicy:
    """A policy that reads on: the `CachedModel` that rollouts and validation are drawn from."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def read(self, tokens: Tensor, mask: Tensor, copies: int) -> Tensor:
        """See `CachedModel`."""
        policy, (rows, length) = self._policy, tokens.shape
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        hidden_keys = torch.zeros(mask.shape).masked_fill(mask == 0, -torch.inf)
        ahead = torch.full((length, length), -torch.inf).triu(1)
        # A row of padding alone sees itself, as nothing at all would be no number.
        bias = torch.maximum(
            hidden_keys[:, None, :] + ahead, torch.full((length, length), -torch.inf).fill_diagonal_(0)
        )
        cache_shape = (rows, policy.shape.key_value_heads, length + _CACHE_BLOCK, policy.shape.head_width)
        self._keys = [torch.zeros(cache_shape) for _ in range(policy.shape.layers)]
        self._values = [torch.zeros(cache_shape) for _ in range(policy.shape.layers)]
        self._read = 0
        states = self._through(policy.embedding[tokens], positions, bias[:, None, None])
        logits = policy.logits(states[:, -1])
        bias = torch.cat([hidden_keys, torch.zeros(rows, _CACHE_BLOCK)], 1)
        self._positions = positions[:, -1:] + 1
        self._bias = bias
        if copies > 1:
            self._keys = [keys.repeat_interleave(copies, 0) for keys in self._keys]
            self._values = [values.repeat_interleave(copies, 0) for values in self._values]
            self._positions = self._positions.repeat_interleave(copies, 0)
            self._bias = bias.repeat_interleave(copies, 0)
            logits = logits.repeat_interleave(copies, 0)
        return logits

    def advance(self, tokens: Tensor) -> Tensor:
        """See `CachedModel`."""
        if self._read == self._bias.shape[1]:
            self._keys = [_longer(keys, 2) for keys in self._keys]
            self._values = [_longer(values, 2) for values in self._values]
            self._bias = _longer(self._bias, 1)
        bias = self._bias[:, None, None, None, : self._read + 1]
        states = self._through(self._policy.embedding[tokens][:, None], self._positions, bias)
        self._positions = self._positions + 1
        return self._policy.logits(states[:, 0])

    def keep(self, rows: Tensor) -> None:
        """See `CachedModel`."""
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
        self._positions, self._bias = self._positions[rows], self._bias[rows]

    def _through(self, states: Tensor, positions: Tensor, bias: Tensor) -> Tensor:
        """All blocks, for tokens that follow those read so far; `bias` is by row, and then broadcast over heads."""
        policy, shape = self._policy, self._policy.shape
        rows, length, _ = states.shape
        after = self._read + length
        cosine, sine = policy.cosine[positions][:, None], policy.sine[positions][:, None]
        for number, block in enumerate(policy.blocks):
            query, key, value = policy.attended(block, states, cosine, sine)
            self._keys[number][:, :, self._read : after] = key
            self._values[number][:, :, self._read : after] = value
            # Heads that share keys and values are read together.
            query = query.reshape(rows, shape.key_value_heads, -1, length, shape.head_width).flatten(2, 3)
            scores = query @ self._keys[number][:, :, :after].transpose(-1, -2) * shape.head_width**-0.5
            scores = scores.view(rows, shape.key_value_heads, -1, length, after) + bias
            mixed = scores.softmax(-1).flatten(2, 3) @ self._values[number][:, :, :after]
            mixed = mixed.view(rows, shape.heads, length, shape.head_width).transpose(1, 2).reshape(rows, length, -1)
            states = policy.ended(block, states, mixed)
        self._read = after
        return policy.last(states)


def _turned(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = states.shape[-1] // 2
    return states * cosine + torch.cat([-states[..., half:], states[..., :half]], -1) * sine


def _longer(tensor: Tensor, axis: int) -> Tensor:
    shape = list(tensor.shape)
    shape[axis] = _CACHE_BLOCK
    return torch.cat([tensor, tensor.new_zeros(shape)], axis)
