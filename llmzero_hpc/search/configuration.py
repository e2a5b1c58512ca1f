"""A phase's configuration: one value for each hyperparameter, and trainer keys beyond the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass, Scalar, names_of


@dataclass(frozen=True, slots=True)
class Bounds:
    """Inclusive limits that a search sets inside the table's hard bounds; None leaves a side to the table."""

    low: float | None = None
    """Smallest value that may be proposed."""
    high: float | None = None
    """Largest value that may be proposed."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that a phase trains with. The defaults are the practitioner baseline (appendix E.1) as far as stated.

    `overrides` holds keys of the trainer beyond the table; the trainer checks them (`Trainer.problems`).
    """

    max_response_length: int = 6144
    rollouts: int = 8
    learning_rate: float = 5e-5
    kl_coefficient: float = 1e-3
    temperature: float = 1.0
    clip_range: float = 0.2
    gradient_clip: float = 1.0
    batch_size: int = 128
    mini_batches: int = 2
    epochs: float = 3.0
    advantage_normalization: bool = False
    lora_rank: int = 64
    lora_alpha: int = 128
    target_modules: str = "all-linear"
    overrides: Mapping[str, Scalar] = field(default_factory=dict)

    def value(self, name: str) -> Scalar:
        """The value of a hyperparameter of the table."""
        result: Scalar = getattr(self, HYPERPARAMETERS[name].name)
        return result

    def values(self) -> dict[str, Scalar]:
        """All hyperparameters of the table by name."""
        return {name: self.value(name) for name in HYPERPARAMETERS}

    def changed(self, **values: Scalar) -> Configuration:
        """A copy with other values; unknown names raise TypeError."""
        return replace(self, **values)  # type: ignore[arg-type]

    def differences(self, other: Configuration) -> dict[str, tuple[Scalar | None, Scalar | None]]:
        """What changes from `self` to `other`: name (overrides included) to (before, after)."""
        changes: dict[str, tuple[Scalar | None, Scalar | None]] = {
            name: (self.value(name), other.value(name))
            for name in HYPERPARAMETERS
            if self.value(name) != other.value(name)
        }
        for key in sorted({*self.overrides, *other.overrides}):
            before, after = self.overrides.get(key), other.overrides.get(key)
            if before != after:
                changes[key] = (before, after)
        return changes

    def steps(self, train_rows: int) -> int:
        """GRPO steps of this phase: ceil(epochs x floor(rows / batch size)), at least one."""
        return max(1, math.ceil(self.epochs * max(1, train_rows // self.batch_size) - 1e-9))

    def problems(self, bounds: Mapping[str, Bounds] | None = None) -> list[str]:
        """Why this configuration is invalid by the table and the search's own bounds; empty when it is valid."""
        found = []
        for row in HYPERPARAMETERS.values():
            value = self.value(row.name)
            if not _has_kind(value, row.kind):
                found.append(f"{row.name}: {value!r} is not of type {row.kind.__name__}")
                continue
            own = (bounds or {}).get(row.name, Bounds())
            lows = [limit for limit in (row.low, own.low) if limit is not None]
            highs = [limit for limit in (row.high, own.high) if limit is not None]
            if isinstance(value, str) or (not lows and not highs):
                continue
            if not math.isfinite(value):
                found.append(f"{row.name}: {value!r} is not finite")
            elif lows and value < max(lows):
                found.append(f"{row.name}: {value:g} is below {max(lows):g}")
            elif highs and value > min(highs):
                found.append(f"{row.name}: {value:g} is above {min(highs):g}")
        if not found and self.batch_size % self.mini_batches:
            found.append(f"mini_batches: {self.mini_batches} does not divide batch_size {self.batch_size}")
        found.extend(
            f"overrides.{key}: {value!r} is not a scalar"
            for key, value in self.overrides.items()
            if not isinstance(value, bool | int | float | str)
        )
        return found

    def fixed_changes(self, other: Configuration) -> list[str]:
        """Names of class fixed that differ; not empty means that `other` cannot continue this adapter."""
        return [name for name in names_of(ParameterClass.FIXED) if self.value(name) != other.value(name)]


def _has_kind(value: object, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


assert {item.name for item in fields(Configuration)} == {*HYPERPARAMETERS, "overrides"}  # noqa: S101 - the table and the record are one thing
