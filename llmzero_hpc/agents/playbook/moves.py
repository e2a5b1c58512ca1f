"""Changes of hyperparameters: as data, so that they can be shown, weakened, reversed and kept within bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass, Scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

DIGITS = 3
"""Significant digits of a proposed value: what a person would write."""

REACH: Mapping[str, tuple[float, float]] = {
    "temperature": (0.6, 1.2),
    "clip_range": (0.1, 0.4),
    "kl_coefficient": (0.0, 0.1),
}
"""How far the playbook goes by itself, however often a rule fires along a strategy: about the paper's ranges (appendix
B.2); its largest KL coefficient is 0.01 (section 4.3.1), and ten times that leaves little but the base model."""
LEAST_RESPONSES = 32
"""Responses of a step below which no batch is made smaller: four groups of eight; less is mostly noise."""
_WHOLE = frozenset({"batch_size", "mini_batches"})
"""Counts that must keep dividing among devices: changed by whole factors or not at all."""


@dataclass(frozen=True, slots=True)
class Move:
    """One parameter's change: times `factor`, plus `shift`, or to `value`. `start` stands in for a value of zero."""

    parameter: str
    factor: float = 1.0
    shift: float = 0.0
    value: Scalar | None = None
    start: float = 0.0

    def applied(self, configuration: Configuration, strength: float = 1.0) -> Scalar:
        """The new value, not yet within bounds. `strength` between 0 and 1 weakens factor and shift."""
        old = configuration.value(self.parameter)
        if self.value is not None:
            return self.value
        if isinstance(old, bool | str):
            return old
        if old == 0 and self.start and self.factor > 1:
            return self.start
        if self.parameter in _WHOLE:
            strength = 1.0
        new = old * self.factor**strength + self.shift * strength
        if HYPERPARAMETERS[self.parameter].kind is not int:
            return rounded(new)
        whole = round(new)
        return whole if whole != old or new == old else old + (1 if new > old else -1)

    def reversed(self) -> Move | None:
        """The move in the other direction; None where there is none (a switch), and for capacity, which accumulates."""
        if self.value is not None or HYPERPARAMETERS[self.parameter].parameter_class is ParameterClass.CAPACITY:
            return None
        return replace(self, factor=1 / self.factor, shift=-self.shift)

    @property
    def words(self) -> str:
        """The move for people, at full strength."""
        if self.value is not None:
            return f"{self.parameter} to {str(self.value).lower()}"
        if self.shift:
            return f"{self.parameter} {self.shift:+g}"
        return f"{self.parameter} x {self.factor:.3g}"


def within_reach(name: str, old: Scalar, new: Scalar, configuration: Configuration) -> Scalar:
    """`new`, or as far towards it as the playbook goes by itself; what is beyond already is not pushed further."""
    if isinstance(old, bool | str) or isinstance(new, bool | str):
        return new
    if name == "batch_size" and new < old and new * configuration.rollouts < LEAST_RESPONSES:
        return old
    low, high = REACH.get(name, (-math.inf, math.inf))
    return min(new, max(old, high)) if new > old else max(new, min(old, low))


def rounded(value: float) -> float:
    """With few significant digits."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else value


def limits(name: str, bounds: Mapping[str, Bounds]) -> tuple[float, float]:
    """Inclusive limits of a numeric hyperparameter: the table's and the search's own together."""
    row, own = HYPERPARAMETERS[name], bounds.get(name, Bounds())
    low = max(limit for limit in (row.low, own.low, -math.inf) if limit is not None)
    high = min(limit for limit in (row.high, own.high, math.inf) if limit is not None)
    return (math.ceil(low), math.floor(high)) if row.kind is int else (low, high)


def fitted(base: Configuration, values: Mapping[str, Scalar], bounds: Mapping[str, Bounds]) -> Configuration:
    """`base` with other values, within bounds, mini-batches dividing the batch; valid whenever `base` is.

    A value that cannot be made to fit stays as it is in `base`.
    """
    changed = base.changed(**{name: _clipped(name, value, bounds) for name, value in values.items()})
    if changed.batch_size % changed.mini_batches:
        low, high = limits("mini_batches", bounds)
        dividing = [n for n in range(int(low), int(min(high, changed.batch_size)) + 1) if changed.batch_size % n == 0]
        if dividing:
            changed = changed.changed(mini_batches=min(dividing, key=lambda n: (abs(n - changed.mini_batches), n)))
        else:
            changed = changed.changed(batch_size=base.batch_size, mini_batches=base.mini_batches)
    for name in values:
        if not changed.problems(bounds):
            break
        changed = changed.changed(**{name: base.value(name)})
    return base if changed.problems(bounds) else changed


def direction(before: Scalar | None, after: Scalar | None) -> int:
    """+1 when a value rose (or was switched on), -1 when it fell, 0 when it did neither."""
    if isinstance(before, str) or isinstance(after, str) or before is None or after is None:
        return 0
    return (after > before) - (after < before)


def _clipped(name: str, value: Scalar, bounds: Mapping[str, Bounds]) -> Scalar:
    row = HYPERPARAMETERS[name]
    if isinstance(value, bool | str):
        return value
    low, high = limits(name, bounds)
    within = min(max(value, low), high)
    return int(within) if row.kind is int else float(within)
