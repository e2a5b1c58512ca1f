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
    size = 1
    for number in mesh:
        size *= number
    write_description(state, size)
    for rank in range(size):
        name = f"world_size_{size}_rank_{rank}.pt"
        torch.save(_shards(weights, mesh, rank, size), actor / f"model_{name}")
        torch.save({"state": rank}, actor / f"optim_{name}")
        torch.save({"lr_scheduler": None}, actor / f"extra_state_{name}")
    torch.save({"at": step}, state / "data.pt")
    place.newest_state.write_text(str(step))
    return state


def write_description(state: Path, size: int) -> None:
    """What VeRL's first process writes beside the shards."""
    actor = state / "actor"
    actor.mkdir(parents=True)
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": size}))
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"}))


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


def save_sharded(rank: int, size: int, place: Layout, meeting: Path) -> None:
    """One of `size` processes that save a LoRA model sharded by FSDP2, as VeRL does, and rank 0 the whole of it too."""
    import peft
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", rank=rank, world_size=size, init_method=f"file://{meeting}")
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({name: torch.nn.Linear(5, 7) for name in ("q_proj", "v_proj")})
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(layers, settings)  # type: ignore[arg-type]  # any module will do
    mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("fsdp",))
    fully_shard(model, mesh=mesh)
    weights = {name: tensor for name, tensor in model.state_dict().items() if "lora_" in name}
    actor = place.state(1) / "actor"
    torch.save(weights, actor / f"model_world_size_{size}_rank_{rank}.pt")
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        torch.save({name: tensor for name, tensor in whole.items() if "lora_" in name}, place.folder / "whole.pt")
    dist.destroy_process_group()
