"""States as VeRL writes them, with made-up weights: shards of any number of processes, without any of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmzero_hpc.trainers.verl.layout import Layout

NAME = "base_model.model.model.layers.{layer}.self_attn.{module}.lora_{side}.default.weight"


def made_up_weights(
    rows: int = 5, rank: int = 4, layers: int = 2, dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Of an adapter, under the names that VeRL saves."""
    generator = torch.Generator().manual_seed(rows * 100 + rank)
    return {
        NAME.format(layer=layer, module=module, side=side): torch.randn(shape, generator=generator).to(dtype)
        for layer in range(2)
        for module in ("q_proj", "v_proj")
        for side, shape in (("A", (rank, rows)), ("B", (rows, rank)))
    }


def write_state(place: Layout, step: int, weights: Mapping[str, Any], mesh: tuple[int, ...] = (1,)) -> Path:
    """A whole state that `mesh` processes wrote: (3,) divides each tensor, (2, 3) keeps that twice. Names it newest."""
    state = place.state(step)
    actor = state / "actor"
    actor.mkdir(parents=True)
    size = 1
    for number in mesh:
        size *= number
    for rank in range(size):
        name = f"world_size_{size}_rank_{rank}.pt"
        torch.save(_shards(weights, mesh, rank, size), actor / f"model_{name}")
        torch.save({"state": rank}, actor / f"optim_{name}")
        torch.save({"lr_scheduler": None}, actor / f"extra_state_{name}")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": size}))
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"}))
    torch.save({"at": step}, state / "data.pt")
    place.newest_state.write_text(str(step))
    return state


def _shards(weights: Mapping[str, Any], mesh: tuple[int, ...], rank: int, size: int) -> dict[str, Any]:
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    try:
        names = ("ddp", "fsdp")[-len(mesh) :]
        devices = init_device_mesh("cpu", mesh, mesh_dim_names=names)
        placements = [Replicate()] * (len(mesh) - 1) + [Shard(0)]
        found = {}
        for key, whole in weights.items():
            parts = list(whole.chunk(mesh[-1]))
            parts += [whole[:0]] * (mesh[-1] - len(parts))  # FSDP2 gives the last ones nothing where rows run out
            own = parts[rank % mesh[-1]].clone()
            found[key] = DTensor.from_local(
                own, devices, placements, run_check=False, shape=whole.shape, stride=whole.stride()
            )
        return found
    finally:
        dist.destroy_process_group()
