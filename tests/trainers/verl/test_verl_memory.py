"""Memory on paper: the sizes of known models, and defaults that fit into A100s of 40 and 80 GB."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verl_models import QWEN3

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import Hardware
from llmzero_hpc.trainers.verl.batch import Processes
from llmzero_hpc.trainers.verl.memory import Plan, estimate
from llmzero_hpc.trainers.verl.model_shape import ModelShape, read_model_shape
from llmzero_hpc.trainers.verl.overrides import ACTOR, MODEL, ROLLOUT
from llmzero_hpc.trainers.verl.placement import placed

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 1024 + 6144
"""Of the practitioner's configuration."""


def shape_of(name: str, folder: Path) -> ModelShape:
    (folder / "config.json").write_text(json.dumps(QWEN3[name]))
    shape = read_model_shape(folder)
    assert shape is not None
    return shape


@pytest.mark.parametrize(
    ("name", "billions", "adapter_millions"),
    # The model cards; adapters of rank 64 on all linear layers as PEFT counts them.
    [("0.6B", 0.596, 40.4), ("1.7B", 1.721, 69.7), ("4B", 4.022, 132.1), ("8B", 8.19, 174.6)],
)
def test_sizes_are_those_of_the_model_cards(
    name: str, billions: float, adapter_millions: float, tmp_path: Path
) -> None:
    shape = shape_of(name, tmp_path)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=1e-3)
    assert shape.adapter_parameters(64) / 1e6 == pytest.approx(adapter_millions, rel=1e-3)


@pytest.mark.parametrize(
    "config", [{}, {"num_attention_heads": "many"}, {**QWEN3["4B"], "num_experts": 8}, {"hidden_size": 8}]
)
def test_a_model_of_another_kind_has_no_shape(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_model_shape(tmp_path) is None
    assert read_model_shape(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("gpu_gb", [40.0, 80.0])
@pytest.mark.parametrize("name", QWEN3)
@pytest.mark.parametrize("gpus", [1, 4, 8])
def test_defaults_fit_or_cannot(name: str, gpu_gb: float, gpus: int, tmp_path: Path) -> None:
    shape = shape_of(name, tmp_path)
    placement = placed(Hardware(gpus=gpus, gpu_memory_gb=gpu_gb), Configuration(), shape, LONGEST)
    assert placement.estimate is not None
    problem = placement.estimate.problem(gpu_gb)
    # float32 shards of 8B alone take 30 GB of a single GPU
    assert bool(problem) == (name == "8B" and gpus == 1 and gpu_gb == 40)
    if problem:
        assert "weights 30.5" in problem
        return
    assert placement.pass_tokens >= LONGEST
    assert placement.estimate.cached_sequences >= 4
    assert gpus % placement.tensor_parallel == 0


def test_defaults_of_the_practitioners_machine(tmp_path: Path) -> None:
    placement = placed(Hardware(gpus=8, gpu_memory_gb=40), Configuration(), shape_of("4B", tmp_path), LONGEST)
    assert (placement.tensor_parallel, placement.utilization, placement.pass_tokens) == (1, 0.7, 16384)


def test_two_gpus_share_weights_that_leave_one_no_room(tmp_path: Path) -> None:
    shape = shape_of("8B", tmp_path)
    narrow = Hardware(gpus=8, gpu_memory_gb=40, vllm_memory_utilization=0.4)
    assert placed(narrow, Configuration(), shape, LONGEST).tensor_parallel == 2


def test_what_a_configuration_overrides_decides(tmp_path: Path) -> None:
    shape = shape_of("4B", tmp_path)
    wanted = {
        f"{ROLLOUT}.gpu_memory_utilization": 0.55,
        f"{ROLLOUT}.tensor_model_parallel_size": 4,
        f"{ACTOR}.ppo_max_token_len_per_gpu": 8000,
        f"{MODEL}.enable_gradient_checkpointing": False,
    }
    placement = placed(Hardware(gpus=8), Configuration(overrides=wanted), shape, LONGEST)
    found = (placement.utilization, placement.tensor_parallel, placement.pass_tokens, placement.checkpointing)
    assert found == (0.55, 4, 8000, False)


def test_an_unknown_model_gets_verls_defaults() -> None:
    placement = placed(Hardware(gpus=8, gpu_memory_gb=40), Configuration(), None, LONGEST)
    assert (placement.tensor_parallel, placement.utilization, placement.pass_tokens) == (1, 0.5, 16384)
    assert placement.estimate is None


@given(
    tokens=st.integers(1000, 50_000),
    gpus=st.sampled_from([1, 2, 4, 8, 16]),
    rank=st.sampled_from([8, 64, 512]),
    utilization=st.floats(0.3, 0.8),
)
def test_more_of_anything_takes_more_and_more_gpus_take_less(
    tokens: int, gpus: int, rank: int, utilization: float
) -> None:
    model = ModelShape(36, 2560, 9728, 32, 8, 128, 151936, tied=True, longest_sequence=None)
    plan = Plan(Processes(1, gpus), tokens, rank, tokens, 1, utilization)

    def training(**changes: Any) -> float:
        from dataclasses import replace

        return sum(estimate(model, replace(plan, **changes), 40.0).training.values())

    assert training(pass_tokens=tokens + 1024) > training()
    assert training(lora_rank=2 * rank) > training()
    assert training(checkpointing=False) > training()
    assert training(processes=Processes(2, gpus)) < training()
