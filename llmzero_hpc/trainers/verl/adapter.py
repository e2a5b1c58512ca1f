"""From the shards of a state to a PEFT adapter, bit by bit what was trained.

Each process writes its part of each tensor. torch says of each part how the whole was divided among how many processes,
so any number of them can be put together again. VeRL's own merger rounds to bfloat16 and fails on states like ours.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

from llmzero_hpc.errors import CorruptStateError, StorageError
from llmzero_hpc.store.atomic import write_json
from llmzero_hpc.trainers.checkpoints import whole_folder
from llmzero_hpc.trainers.verl.state import shard, world_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def extract_adapter(state: Path, target: Path, base_model: str) -> int:
    """Write the adapter of a complete state to `target`, complete or not at all; one that is there is replaced.

    Returns:
        How many of its tensors hold nothing but zeros: half of them before training, none after it has begun.

    Raises:
        CorruptStateError: the state is not what VeRL writes.
        StorageError: the file system refused.
    """
    try:
        shards, lora = _shards(state), json.loads((state / "actor" / "lora_train_meta.json").read_bytes())
        weights = {_name(key): _whole(key, [part[key] for part in shards]) for key in shards[0] if "lora_" in key}
        rank, alpha = int(lora["r"]), int(lora["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorruptStateError(f"no adapter can be read from {state}: {reason}") from error
    if not weights:
        raise CorruptStateError(f"{state} holds no LoRA weights", "the run had lora_rank 0, or peft is not below 0.21")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted({name.split(".lora_")[0].rpartition(".")[-1] for name in weights}),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    _write(target, settings, weights)
    return sum(not bool(tensor.any()) for tensor in weights.values())


def _shards(state: Path) -> list[dict[str, Any]]:
    """What each process wrote, by rank."""
    import torch
    import torch.distributed.tensor  # its classes are in the files

    size = world_size(state)
    found = []
    for rank in range(size):
        path = shard(state, "model", rank, size)
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path.name} is not complete")
        found.append(torch.load(path, map_location="cpu", weights_only=False))
    if any(part.keys() != found[0].keys() for part in found):
        raise ValueError("the processes wrote different tensors")
    return found


def _name(key: str) -> str:
    """PEFT's name in a file: without that of the adapter."""
    return key.replace(".default.", ".", 1)


def _whole(key: str, parts: Sequence[Any]) -> Any:
    """The tensor of which each process had a part."""
    from torch.distributed.tensor import DTensor

    first = parts[0]
    if not isinstance(first, DTensor):
        if len(parts) > 1:
            raise ValueError(f"{key} is in {len(parts)} parts, of which torch does not say how they belong together")
        return first.detach().contiguous().clone()
    locals_of = {rank: part.to_local().detach() for rank, part in enumerate(parts)}
    whole = _joined(first, first.device_mesh.mesh, locals_of, depth=0)
    if whole.shape != first.shape:
        raise ValueError(f"{key}: the parts make {tuple(whole.shape)}, not {tuple(first.shape)}")
    return whole.contiguous().clone()


def _joined(tensor: Any, ranks: Any, parts: Mapping[int, Any], *, depth: int) -> Any:
    """The tensor that the processes in `ranks` hold together; its dimensions from `depth` on are yet to be joined."""
    import torch
    from torch.distributed.tensor import Replicate, Shard

    if depth == len(tensor.placements):
        return parts[int(ranks)]
    placement = tensor.placements[depth]
    if type(placement) is Replicate:
        return _joined(tensor, ranks[0], parts, depth=depth + 1)
    if type(placement) is not Shard:
        raise ValueError(f"parts are placed as {placement}, which is not known here")
    return torch.cat([_joined(tensor, row, parts, depth=depth + 1) for row in ranks], dim=placement.dim)


def _write(target: Path, settings: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with whole_folder(target) as folder:
        write_json(folder / "adapter_config.json", settings)
        try:
            save_file(dict(weights), folder / "adapter_model.safetensors", metadata={"format": "pt"})
        except SafetensorError as error:  # what a full disk is to safetensors
            reason = " ".join(str(error).split())[:200]
            raise StorageError(f"{target} cannot be written: {reason}") from error
