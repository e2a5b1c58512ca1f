"""What a configuration may be, and how two of them differ."""

from __future__ import annotations

import math

import pytest

from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass, names_of


def test_the_default_is_valid() -> None:
    assert Configuration().problems() == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"learning_rate": 1.0}, "learning_rate: 1 is above 0.1"),
        ({"learning_rate": 0.0}, "learning_rate: 0 is below 1e-08"),
        ({"learning_rate": math.nan}, "learning_rate: nan is not finite"),
        ({"kl_coefficient": math.inf}, "kl_coefficient: inf is not finite"),
        ({"rollouts": 1}, "rollouts: 1 is below 2"),
        ({"rollouts": 8.0}, "rollouts: 8.0 is not of type int"),
        ({"rollouts": True}, "rollouts: True is not of type int"),
        ({"temperature": "hot"}, "temperature: 'hot' is not of type float"),
        ({"advantage_normalization": 1}, "advantage_normalization: 1 is not of type bool"),
        ({"target_modules": 3}, "target_modules: 3 is not of type str"),
        ({"batch_size": 15}, "mini_batches: 2 does not divide batch_size 15"),
        ({"overrides": {"a.b": [1]}}, "overrides.a.b: [1] is not a scalar"),
    ],
)
def test_each_mistake_is_named(values: dict[str, object], problem: str) -> None:
    assert Configuration(**values).problems() == [problem]  # type: ignore[arg-type]


def test_whole_numbers_are_floats_too() -> None:
    assert Configuration(temperature=1, epochs=2).problems() == []


def test_own_bounds_narrow_the_table_and_never_widen_it() -> None:
    own = {"rollouts": Bounds(high=16), "temperature": Bounds(low=0.9, high=9.0)}
    assert Configuration(rollouts=16).problems(own) == []
    assert Configuration(rollouts=32).problems(own) == ["rollouts: 32 is above 16"]
    assert Configuration(temperature=0.8).problems(own) == ["temperature: 0.8 is below 0.9"]
    assert Configuration(temperature=4.0).problems(own) == ["temperature: 4 is above 3"]


def test_several_mistakes_are_all_named() -> None:
    assert len(Configuration(rollouts=1, learning_rate=7.0, clip_range=2.0).problems()) == 3


def test_differences_name_before_and_after() -> None:
    before = Configuration(overrides={"a": 1, "b": 2})
    after = before.changed(rollouts=16, learning_rate=1e-5)
    assert before.differences(after) == {"rollouts": (8, 16), "learning_rate": (5e-5, 1e-5)}
    assert before.differences(Configuration(overrides={"b": 3, "c": 4})) == {
        "a": (1, None),
        "b": (2, 3),
        "c": (None, 4),
    }
    assert before.differences(before) == {}


def test_changing_an_unknown_name_is_refused() -> None:
    with pytest.raises(TypeError, match="learning_speed"):
        Configuration().changed(learning_speed=1.0)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "rows", "steps"),
    [
        (3.0, 128, 5000, 117),  # 3 x floor(5000 / 128) = 3 x 39
        (0.5, 128, 5000, 20),  # ceil(19.5)
        (0.1, 10, 100, 1),  # 0.1 x 10 is one step, whatever floating point makes of it
        (0.3, 1, 10, 3),  # 0.3 x 10 likewise
        (0.001, 128, 5000, 1),  # never none
        (2.0, 128, 64, 2),  # fewer rows than a batch: one batch an epoch
    ],
)
def test_steps_of_a_phase(epochs: float, batch_size: int, rows: int, steps: int) -> None:
    assert Configuration(epochs=epochs, batch_size=batch_size).steps(rows) == steps


def test_fixed_changes() -> None:
    assert Configuration().fixed_changes(Configuration(rollouts=32, learning_rate=1e-6)) == []
    assert Configuration().fixed_changes(Configuration(lora_alpha=64, lora_rank=32)) == ["lora_rank", "lora_alpha"]


def test_values_are_those_of_the_table_in_its_order() -> None:
    assert list(Configuration().values()) == list(HYPERPARAMETERS)
    with pytest.raises(KeyError):
        Configuration().value("overrides")


def test_the_classes_share_the_table_out() -> None:
    shared_out = [name for parameter_class in ParameterClass for name in names_of(parameter_class)]
    assert sorted(shared_out) == sorted(HYPERPARAMETERS)
    assert names_of(ParameterClass.CAPACITY) == ("max_response_length", "rollouts")


def test_every_default_lies_within_its_hard_bounds() -> None:
    for row in HYPERPARAMETERS.values():
        assert row.verl_keys
        assert row.trl_argument
        assert (row.low is None) == (row.kind in {bool, str}) == (row.high is None)
