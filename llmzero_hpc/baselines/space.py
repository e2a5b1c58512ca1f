"""What baselines sample from: the ranges of `search.yaml` within its bounds, and configurations made of the values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.method_sections import Range, Value
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

Dimension = Range | tuple[Value, ...]


def within_bounds(ranges: Mapping[str, Dimension], bounds: Mapping[str, Bounds]) -> dict[str, Dimension]:
    """The part of the ranges that the search allows.

    Raises:
        ConfigurationError: nothing is left of one.
    """
    found: dict[str, Dimension] = {}
    for name, dimension in ranges.items():
        own = bounds.get(name, Bounds())
        low = -math.inf if own.low is None else own.low
        high = math.inf if own.high is None else own.high
        if isinstance(dimension, Range):
            cut = dimension.model_copy(update={"low": max(low, dimension.low), "high": min(high, dimension.high)})
            left: Dimension | None = cut if cut.low <= cut.high else None
        else:
            left = tuple(value for value in dimension if isinstance(value, str) or low <= value <= high) or None
        if left is None:
            raise ConfigurationError(
                f"method.ranges.{name} lies outside of bounds.{name} ({low:g} to {high:g})",
                f"give method.ranges.{name} a range within the bounds",
            )
        found[name] = left
    return found


def sampled(space: Mapping[str, Dimension], random: Random) -> dict[str, Value]:
    """One value for each dimension, independently."""
    return {name: _sample(name, dimension, random) for name, dimension in space.items()}


def perturbed(
    space: Mapping[str, Dimension], configuration: Configuration, factors: tuple[float, float], random: Random
) -> dict[str, Value]:
    """Numbers times one of two factors, within their range; of a list, the value before or after."""
    found: dict[str, Value] = {}
    for name, dimension in space.items():
        before = configuration.value(name)
        if isinstance(dimension, Range):
            assert not isinstance(before, str)  # noqa: S101 - words have no range
            moved = min(max(before * random.choice(factors), dimension.low), dimension.high)
            found[name] = _typed(name, moved)
        else:
            place = dimension.index(before) if before in dimension else 0
            found[name] = dimension[min(max(place + random.choice((-1, 1)), 0), len(dimension) - 1)]
    return found


def configured(base: Configuration, values: Mapping[str, Value]) -> Configuration:
    """The base with some values.

    What is not among them but hangs on them follows: the adapter's scale keeps its ratio to the rank, and a batch that
    is not divisible is split into as many mini-batches as divide it.
    """
    changed = base.changed(**values)
    if "lora_rank" in values and "lora_alpha" not in values:
        ratio = base.lora_alpha / base.lora_rank
        changed = changed.changed(lora_alpha=max(1, round(ratio * changed.lora_rank)))
    if "mini_batches" not in values:
        parts = next(count for count in range(base.mini_batches, 0, -1) if changed.batch_size % count == 0)
        changed = changed.changed(mini_batches=parts)
    return changed


def _sample(name: str, dimension: Dimension, random: Random) -> Value:
    if not isinstance(dimension, Range):
        return random.choice(dimension)
    if dimension.log:
        value = math.exp(random.uniform(math.log(dimension.low), math.log(dimension.high)))
    else:
        value = random.uniform(dimension.low, dimension.high)
    return _typed(name, min(max(value, dimension.low), dimension.high))


def _typed(name: str, value: float) -> Value:
    return round(value) if HYPERPARAMETERS[name].kind is int else float(value)
