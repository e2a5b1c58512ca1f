"""What a configuration may say to VeRL beyond the table, and thirty things that it may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.trainers.registry import make_trainer
from llmzero_hpc.trainers.verl import overrides, schema
from llmzero_hpc.trainers.verl.overrides import ACTOR, MODEL, ROLLOUT


def search(model: Path, hardware: dict[str, Any]) -> SearchConfig:
    return SearchConfig.model_validate(
        {"name": "s", "trainer": "verl", "model": str(model), "task": {"name": "chains"}, "hardware": hardware}
    )


def test_every_key_that_may_be_set_is_one_of_verls_and_none_of_the_table() -> None:
    assert overrides.KEYS.keys() <= schema.types().keys()
    assert schema.release() == "0.9.1"
    # The two ends of the clip range may differ: the upper one has a name of its own.
    taken = {key for row in HYPERPARAMETERS.values() for key in row.verl_keys} - {f"{ACTOR}.clip_ratio_high"}
    assert not overrides.KEYS.keys() & taken
    assert taken <= schema.types().keys()


@pytest.mark.parametrize("key", overrides.KEYS)
def test_the_ends_of_what_may_be_set_are_accepted_and_the_outside_is_not(key: str) -> None:
    limits, kinds = overrides.KEYS[key], schema.types()[key]
    if limits.choices:
        assert not overrides.problems(dict.fromkeys((key,), limits.choices[0]))
        assert overrides.problems({key: "another"})
    elif "bool" in kinds:
        assert not overrides.problems({key: True})
        assert overrides.problems({key: 1})
    else:
        kind = int if "int" in kinds else float
        assert limits.low is not None
        assert limits.high is not None
        assert not overrides.problems({key: kind(limits.low)})
        assert not overrides.problems({key: kind(limits.high)})
        assert overrides.problems({key: kind(limits.low) - 1})
        assert overrides.problems({key: limits.high * 2})
        assert overrides.problems({key: float("nan")})


GPUS = {"gpus": 8, "nodes": 2, "gpu_memory_gb": 40}
BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    # keys that VeRL does not have, or that are not a proposal's business
    ({"overrides": {f"{ACTOR}.entropy_coef": 0.01}}, GPUS, f"no such setting; did you mean '{ACTOR}.entropy_coeff'?"),
    ({"overrides": {"learning_rate": 0.1}}, GPUS, "has no such setting; docs/verl.md lists"),
    ({"overrides": {"trainer.default_local_dir": "/home/me"}}, GPUS, "a configuration may not set it"),
    ({"overrides": {"trainer.logger": "wandb"}}, GPUS, "a configuration may not set it"),
    ({"overrides": {"trainer.nnodes": 4}}, GPUS, "a configuration may not set it"),
    ({"overrides": {"trainer.n_gpus_per_node": 8}}, GPUS, "a configuration may not set it"),
    ({"overrides": {f"{MODEL}.external_lib": "os"}}, GPUS, "a configuration may not set it"),
    ({"overrides": {f"{MODEL}.trust_remote_code": True}}, GPUS, "a configuration may not set it"),
    ({"overrides": {f"{MODEL}.custom_chat_template": "{{ x }}"}}, GPUS, "a configuration may not set it"),
    ({"overrides": {"data.train_files": "/data/test.parquet"}}, GPUS, "a configuration may not set it"),
    ({"overrides": {f"+{ACTOR}.new": 1}}, GPUS, "has no such setting"),
    ({"overrides": {f"{ACTOR}.clip_ratio=1 trainer.logger": 1}}, GPUS, "has no such setting"),
    # keys of the table under VeRL's name
    ({"overrides": {f"{ACTOR}.optim.lr": 1e-5}}, GPUS, "set learning_rate instead"),
    ({"overrides": {f"{ROLLOUT}.n": 16}}, GPUS, "set rollouts instead"),
    ({"overrides": {"trainer.total_training_steps": 5}}, GPUS, "set epochs instead"),
    # keys that do nothing
    ({"overrides": {f"{ACTOR}.grad_clip": 0.5}}, GPUS, "a configuration may not set it"),
    # values
    ({"overrides": {f"{ACTOR}.entropy_coeff": "much"}}, GPUS, "'much' is not of type float"),
    ({"overrides": {f"{ACTOR}.ppo_epochs": 1.5}}, GPUS, "1.5 is not of type int"),
    ({"overrides": {f"{ACTOR}.ppo_epochs": True}}, GPUS, "True is not of type int"),
    ({"overrides": {f"{ACTOR}.ppo_epochs": 100}}, GPUS, "100 is not between 1 and 16"),
    ({"overrides": {f"{ACTOR}.shuffle": 1}}, GPUS, "1 is not of type bool"),
    ({"overrides": {f"{ACTOR}.loss_agg_mode": "mean"}}, GPUS, "'mean' is none of token-mean"),
    ({"overrides": {f"{ROLLOUT}.top_p": float("inf")}}, GPUS, "inf is not finite"),
    # arithmetic
    ({"batch_size": 10, "mini_batches": 5, "rollouts": 6}, GPUS, "12 responses (2 prompts x 6 rollouts)"),
    ({}, {"gpus": 7, "nodes": 2}, "7 cannot be shared out evenly among 2 machines"),
    ({"overrides": {f"{ROLLOUT}.tensor_model_parallel_size": 3}}, GPUS, "3 does not divide the 4 GPUs"),
    ({"overrides": {f"{ACTOR}.ppo_max_token_len_per_gpu": 4096}}, GPUS, "4096 is less than the longest prompt"),
    ({"max_response_length": 65536}, GPUS, "are more than the model's 40960"),
    # the adapter
    ({"lora_rank": 600}, GPUS, "600 is above 512, the highest that vLLM takes"),
    ({"target_modules": "q_proj,all-linear"}, GPUS, "'all-linear', or names joined by commas"),
    ({"target_modules": "lm_head"}, GPUS, "lm_head cannot carry an adapter"),
    # memory
    ({"max_response_length": 38000}, GPUS, "training needs about"),
    ({}, {"gpus": 1, "gpu_memory_gb": 16}, "training needs about"),
    (
        {"overrides": {f"{ROLLOUT}.gpu_memory_utilization": 0.2}},
        {"gpus": 1, "gpu_memory_gb": 40, "vllm_memory_utilization": 0.9},
        "vLLM cannot hold one sequence of the longest length",
    ),
]


@pytest.mark.parametrize(("changes", "hardware", "message"), BAD)
def test_a_bad_configuration_is_refused_in_one_clear_line(
    changes: dict[str, Any], hardware: dict[str, Any], message: str, model_4b: Path
) -> None:
    configuration = replace(Configuration(), **changes)
    (problem,) = make_trainer("verl").problems(search(model_4b, hardware), configuration)
    assert message in problem
    assert "\n" not in problem
    name = problem.partition(":")[0]
    assert name.startswith("overrides.") or name in {*HYPERPARAMETERS, "hardware.gpus"}


def test_there_are_thirty_and_the_defaults_are_none_of_them(model_4b: Path) -> None:
    assert len(BAD) >= 30
    assert make_trainer("verl").problems(search(model_4b, GPUS), Configuration()) == []


def test_the_page_lists_every_key_that_may_be_set() -> None:
    page = (Path(__file__).parents[3] / "docs" / "verl.md").read_text()
    assert not [key for key in overrides.KEYS if f"| `{key}` |" not in page]
