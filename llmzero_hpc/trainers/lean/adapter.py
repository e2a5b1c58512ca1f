"""LoRA adapters in PEFT's file format, and what they change in a model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.store.atomic import write_json
from llmzero_hpc.trainers.checkpoints import ADAPTER_FILES, is_adapter
from llmzero_hpc.trainers.lean.policy import PROJECTIONS, projection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmzero_hpc.search.configuration import Configuration

Tensor = Any
_PREFIX: Final = "base_model.model."
_SETTINGS: Final = {"use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none"}
"""Settings of PEFT that an adapter must have here, where its file has them."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Two matrices for each linear layer that is adapted, by the layer's name in the model."""

    down: dict[str, Tensor]
    up: dict[str, Tensor]
    rank: int
    alpha: int

    def changes(self) -> dict[str, Tensor]:
        """What it adds to the weights of each layer; gradients flow through."""
        scale = self.alpha / self.rank
        return {place: scale * (self.up[place] @ down) for place, down in self.down.items()}

    def parameters(self) -> list[Tensor]:
        """All matrices, in an order that never changes."""
        return [matrix for place in self.down for matrix in (self.down[place], self.up[place])]


def target_names(configuration: Configuration) -> tuple[str, ...]:
    """The linear layers of each block that carry the adapter."""
    wanted = {name.strip() for name in configuration.target_modules.split(",")}
    return tuple(PROJECTIONS) if wanted == {"all-linear"} else tuple(name for name in PROJECTIONS if name in wanted)


def new_adapter(weights: Mapping[str, Tensor], layers: int, configuration: Configuration) -> Adapter:
    """An adapter that changes nothing yet, initialised as PEFT does, from torch's global random state."""
    rank = configuration.lora_rank
    down, up = {}, {}
    for layer in range(layers):
        for name in target_names(configuration):
            place = projection(layer, name)
            rows, columns = weights[f"{place}.weight"].shape
            down[place] = torch.empty(rank, columns).uniform_(-1 / math.sqrt(columns), 1 / math.sqrt(columns))
            up[place] = torch.zeros(rows, rank)
    return Adapter(down, up, rank, configuration.lora_alpha)


def read_adapter(folder: Path, weights: Mapping[str, Tensor]) -> Adapter:
    """The adapter of a checkpoint, whichever trainer saved it.

    Raises:
        ConfigurationError: it is not there, does not fit the model, or is of a kind that is not known here.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not is_adapter(folder):
        raise ConfigurationError(f"{folder} holds no adapter ({' and '.join(ADAPTER_FILES)})")
    try:
        settings = json.loads((folder / ADAPTER_FILES[0]).read_bytes())
        tensors = load_file(folder / ADAPTER_FILES[1])
        rank, alpha = int(settings["r"]), int(settings["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigurationError(f"the adapter {folder} cannot be read: {error}") from None
    if any(settings.get(name, wanted) != wanted for name, wanted in _SETTINGS.items()):
        raise ConfigurationError(f"the adapter {folder} is no plain LoRA adapter", "take `trainer: trl`")
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place, _, part = name.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        weight = weights.get(f"{place}.weight")
        fits = weight is not None and {
            "lora_A": (rank, weight.shape[1]),
            "lora_B": (weight.shape[0], rank),
        }.get(part) == tuple(tensor.shape)
        if not fits:
            raise ConfigurationError(f"the adapter {folder} does not fit the model: {name}")
        (down if part == "lora_A" else up)[place] = tensor.float()
    if down.keys() != up.keys() or not down:
        raise ConfigurationError(f"the adapter {folder} does not fit the model: half of it is missing")
    order = [place for place in _places(weights) if place in down]
    if len(order) != len(down):
        raise ConfigurationError(f"the adapter {folder} does not fit the model: it adapts other layers, too")
    return Adapter({place: down[place] for place in order}, {place: up[place] for place in order}, rank, alpha)


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter as PEFT does, so that PEFT, TRL, vLLM and the other trainers can load it.

    Raises:
        StorageError: the file system refused.
        SafetensorError, OSError: likewise, of the weights.
    """
    from safetensors.torch import save_file

    names = sorted({place.rpartition(".")[2] for place in adapter.down})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "target_modules": names,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        **_SETTINGS,
    }
    tensors = {}
    for place, down in adapter.down.items():
        tensors[f"{_PREFIX}{place}.lora_A.weight"] = down.detach().contiguous()
        tensors[f"{_PREFIX}{place}.lora_B.weight"] = adapter.up[place].detach().contiguous()
    write_json(folder / ADAPTER_FILES[0], settings)
    save_file(tensors, folder / ADAPTER_FILES[1], metadata={"format": "pt"})


def _places(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the linear layers that may carry an adapter, in the model's order."""
    layers = sorted({int(name.split(".")[2]) for name in weights if name.startswith("model.layers.")})
    return [projection(layer, name) for layer in layers for name in PROJECTIONS]
