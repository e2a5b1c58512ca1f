"""A GRPO step is divided without a rest, or refused with the figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import Hardware
from llmzero_hpc.trainers.verl.batch import processes, step_shape


@given(
    mini_batch_prompts=st.integers(1, 64),
    mini_batches=st.integers(1, 8),
    rollouts=st.integers(2, 32),
    nodes=st.integers(1, 4),
    on_each=st.integers(0, 8),
    micro=st.none() | st.integers(1, 100),
)
def test_nothing_is_lost_on_the_way_to_a_pass(
    mini_batch_prompts: int, mini_batches: int, rollouts: int, nodes: int, on_each: int, micro: int | None
) -> None:
    configuration = Configuration(
        batch_size=mini_batch_prompts * mini_batches, mini_batches=mini_batches, rollouts=rollouts
    )
    hardware = Hardware(nodes=nodes, gpus=nodes * on_each, micro_batch_size=micro)
    workers = processes(hardware).total
    assert workers == nodes * max(1, on_each)
    try:
        shape = step_shape(configuration, hardware)
    except ValueError:
        assert mini_batch_prompts * rollouts % workers
        return
    assert shape.share * workers == mini_batch_prompts * rollouts
    assert shape.share * workers * mini_batches == shape.responses
    assert shape.mini_batch_prompts * mini_batches == shape.prompts
    assert shape.updates == mini_batches
    if micro is None and on_each:
        assert shape.micro_batch is None
    else:
        assert shape.micro_batch is not None
        assert shape.share % shape.micro_batch == 0
        assert shape.micro_batch <= (micro or shape.share)


def test_passes_over_the_same_responses_are_optimizer_steps() -> None:
    configuration = Configuration(overrides={"actor_rollout_ref.actor.ppo_epochs": 3})
    assert step_shape(configuration, Hardware(gpus=8)).updates == 6


def test_a_micro_batch_is_the_largest_that_divides() -> None:
    configuration = Configuration(batch_size=12, mini_batches=1, rollouts=5)
    assert step_shape(configuration, Hardware(gpus=2, micro_batch_size=8)).micro_batch == 6


@pytest.mark.parametrize(
    ("configuration", "hardware", "message"),
    [
        (Configuration(batch_size=6, mini_batches=2, rollouts=3), Hardware(gpus=4), r"9 responses .* 4 processes"),
        (Configuration(batch_size=7, mini_batches=2), Hardware(), "2 does not divide batch_size 7"),
        (Configuration(), Hardware(gpus=3, nodes=2), "3 cannot be shared out evenly among 2 machines"),
        (Configuration(), Hardware(device="cuda"), "0, but device is cuda"),
    ],
)
def test_what_cannot_be_divided_is_refused(configuration: Configuration, hardware: Hardware, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        step_shape(configuration, hardware)
