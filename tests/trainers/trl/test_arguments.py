"""Every hyperparameter of the table reaches TRL, PEFT, DeepSpeed and vLLM; the real classes accept what is rendered."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.sections import Hardware
from llmzero_hpc.trainers.launch import launch_plan
from llmzero_hpc.trainers.steps import row_order
from llmzero_hpc.trainers.trl import overrides
from llmzero_hpc.trainers.trl.arguments import grpo_arguments, lora_arguments, step_shape
from llmzero_hpc.trainers.trl.deepspeed import deepspeed_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.trainers.base import PhaseSpec

FULL = Configuration(
    max_response_length=96,
    rollouts=6,
    learning_rate=3e-5,
    kl_coefficient=0.02,
    temperature=0.9,
    clip_range=0.25,
    gradient_clip=0.7,
    batch_size=12,
    mini_batches=3,
    epochs=2.0,
    advantage_normalization=True,
    lora_rank=16,
    lora_alpha=24,
    target_modules="q_proj, v_proj",
)


def test_every_hyperparameter_of_the_table_arrives(make_spec: Callable[..., PhaseSpec], tmp_path: Path) -> None:
    from peft import LoraConfig
    from trl import GRPOConfig

    arguments = GRPOConfig(**grpo_arguments(make_spec(configuration=FULL), 5, tmp_path, 32))
    lora = LoraConfig(**lora_arguments(FULL))
    expected = {
        "max_completion_length": 96,
        "num_generations": 6,
        "learning_rate": 3e-5,
        "beta": 0.02,
        "temperature": 0.9,
        "epsilon": 0.25,
        "max_grad_norm": 0.7,
        "per_device_train_batch_size": 24,
        "steps_per_generation": 3,
        "max_steps": 15,
        "scale_rewards": "group",
    }
    assert {name: getattr(arguments, name) for name in expected} == expected
    assert arguments.generation_batch_size == 12 * 6
    assert arguments.epsilon_high is None
    assert (lora.r, lora.lora_alpha, set(lora.target_modules)) == (16, 24, {"q_proj", "v_proj"})
    reached = {*expected, "r", "lora_alpha", "target_modules"}
    assert {row.trl_argument for row in HYPERPARAMETERS.values()} <= reached
    assert arguments.get_warmup_steps(15) == 0
    assert arguments.lr_scheduler_type == "constant"
    assert arguments.loss_type == "dapo"


def test_advantages_are_left_alone_without_normalization(make_spec: Callable[..., PhaseSpec], tmp_path: Path) -> None:
    from trl import GRPOConfig

    plain = replace(FULL, advantage_normalization=False)
    assert GRPOConfig(**grpo_arguments(make_spec(configuration=plain), 1, tmp_path, 8)).scale_rewards == "none"


@pytest.mark.parametrize("gpus", [0, 1, 2, 4])
@pytest.mark.parametrize("micro", [None, 1, 5, 8])
def test_a_step_is_its_prompts_times_rollouts_however_it_is_divided(gpus: int, micro: int | None) -> None:
    shape = step_shape(FULL, Hardware(gpus=gpus, micro_batch_size=micro))
    devices = max(1, gpus)
    assert shape.per_device * shape.passes_per_update * devices * shape.updates == 12 * 6
    assert shape.passes_per_generation == shape.passes_per_update * 3
    assert shape.per_device <= (micro or 24)


def test_responses_that_cannot_be_shared_out_are_a_problem() -> None:
    with pytest.raises(ValueError, match=r"24 responses .* 5 GPUs"):
        step_shape(FULL, Hardware(gpus=5))


def test_more_iterations_are_more_optimizer_steps_of_the_same_generation(
    make_spec: Callable[..., PhaseSpec], tmp_path: Path
) -> None:
    repeated = replace(FULL, overrides={"num_iterations": 2})
    assert grpo_arguments(make_spec(configuration=repeated), 5, tmp_path, 8)["max_steps"] == 30


def test_overrides_that_may_be_set_are_scalars_of_trl_and_none_of_the_table() -> None:
    from trl import GRPOConfig

    fields = {field.name for field in dataclasses.fields(GRPOConfig)}
    assert overrides.KEYS.keys() <= fields
    assert not overrides.KEYS.keys() & {row.trl_argument for row in HYPERPARAMETERS.values()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("output_dir", "/elsewhere"),
        ("report_to", "wandb"),
        ("push_to_hub", True),
        ("deepspeed", "file.json"),
        ("resume_from_checkpoint", "x"),
        ("generation_kwargs", "{}"),
        ("learning_rate", 1.0),
        ("top_p", 2.0),
        ("top_p", float("nan")),
        ("top_k", 1.5),
        ("weight_decay", True),
        ("loss_type", "sapo"),
    ],
)
def test_other_overrides_are_refused_in_one_line(key: str, value: float | str) -> None:
    (problem,) = overrides.problems({key: value})
    assert problem.startswith(f"overrides.{key}: ")
    assert "\n" not in problem


def test_overrides_reach_trl(make_spec: Callable[..., PhaseSpec], tmp_path: Path) -> None:
    from trl import GRPOConfig

    chosen = {"weight_decay": 0.1, "epsilon_high": 0.3, "top_p": 0.95, "loss_type": "bnpo", "adam_beta2": 0.99}
    assert overrides.problems(chosen) == []
    arguments = GRPOConfig(**grpo_arguments(make_spec(configuration=replace(FULL, overrides=chosen)), 1, tmp_path, 8))
    assert {name: getattr(arguments, name) for name in chosen} == chosen


def test_vllm_on_gpus_with_bfloat16(
    make_spec: Callable[..., PhaseSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from trl import GRPOConfig

    hardware = Hardware(device="cuda", gpus=1, vllm=True, vllm_memory_utilization=0.35, gradient_checkpointing=True)
    rendered = grpo_arguments(make_spec(configuration=FULL, hardware=hardware), 5, tmp_path, 100)
    assert rendered["bf16"]
    assert not rendered["use_cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    # Only the device itself is out of reach here.
    monkeypatch.setattr(GRPOConfig, "device", torch.device("cuda", 0))
    monkeypatch.setattr(GRPOConfig, "world_size", 1)
    arguments = GRPOConfig(**rendered)
    assert (arguments.use_vllm, arguments.vllm_mode, arguments.vllm_gpu_memory_utilization) == (True, "colocate", 0.35)
    assert arguments.vllm_max_model_length == 100 + 96
    assert arguments.bf16
    assert arguments.gradient_checkpointing


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_accepts_its_configuration(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig
    from transformers.integrations import HfDeepSpeedConfig

    shape = step_shape(FULL, Hardware(gpus=2, micro_batch_size=4))
    rendered = deepspeed_config(stage, shape, gradient_clip=0.7, bfloat16=True)
    assert HfDeepSpeedConfig(rendered).is_zero3() == (stage == 3)
    without_auto = {key: value for key, value in rendered.items() if value != "auto"}
    without_auto["zero_optimization"] = {k: v for k, v in rendered["zero_optimization"].items() if v != "auto"}
    config = DeepSpeedConfig(without_auto)
    assert config.zero_optimization_stage == stage
    assert config.gradient_clipping == 0.7
    assert config.gradient_accumulation_steps == 3
    assert config.train_micro_batch_size_per_gpu == 4


def test_several_gpus_run_through_torchs_launcher_and_a_cpu_alone() -> None:
    attempt = Path("phases/0001/attempts/2")
    plan = launch_plan("some.module", Path("config.yaml"), attempt, Hardware(device="cuda", gpus=4))
    assert plan.command[1:] == (
        *("-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc-per-node=4"),
        *("-m", "some.module", "config.yaml", str(attempt)),
    )
    alone = launch_plan("some.module", Path("config.yaml"), attempt, Hardware(threads=2))
    assert alone.command[1:] == ("-m", "some.module", "config.yaml", str(attempt))
    assert alone.environment["OMP_NUM_THREADS"] == "2"
    assert alone.environment["CUDA_VISIBLE_DEVICES"] == ""
    sharded = launch_plan("some.module", Path("c"), attempt, Hardware(gpus=1, deepspeed_stage=3))
    assert "--nproc-per-node=1" in sharded.command
    assert "CUDA_VISIBLE_DEVICES" not in sharded.environment


def test_rows_are_shuffled_anew_in_each_epoch_and_never_cut_a_batch(make_spec: Callable[..., PhaseSpec]) -> None:
    spec = make_spec(total_steps=7)
    order = row_order(spec, 14, 0)
    assert len(order) == 7 * 4
    epochs = [order[start : start + 12] for start in (0, 12, 24)]
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert row_order(spec, 14, 3) == order[12:]
    with pytest.raises(ValueError, match="only 3 training rows"):
        row_order(spec, 3, 0)
