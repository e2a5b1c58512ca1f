"""Where a from-scratch phase begins: spread over the space, away from earlier ones.

The paper's from-scratch phases are the search's way out of a poor default (section 3.3). The first of them takes the
paper's own prior, little capacity first; the second doubts it, as a short limit that teaches a policy to stop on some
tasks is a trap on others. Nothing that is believed is applied to the rest, which are drawn.
"""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

from llmzero_hpc.agents.playbook.moves import REACH, Move, fitted, limits, rounded
from llmzero_hpc.search.configuration import Bounds, Configuration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmzero_hpc.search.hyperparameters import Scalar

SPANS: Mapping[str, tuple[float, float]] = {
    "learning_rate": (0.2, 4.0),
    "kl_coefficient": (0.1, 10.0),
    "max_response_length": (0.3, 1.5),
    "temperature": (0.6, 1.2),
    "clip_range": (0.75, 1.75),
    "batch_size": (0.5, 2.0),
}
"""Factors on the reference between which values are drawn, and half of the way to wider limits of the search. Around
the practitioner default they cover the paper's ranges for random search (appendix B.2), the learning rate and the KL
coefficient upward too, and response lengths, which random search left alone."""
SHORT_FIRST: Mapping[str, float] = {"max_response_length": 0.35, "learning_rate": 2.0, "batch_size": 2.0}
"""Factors of the first fresh start on the root."""
FAST: Mapping[str, float] = {"learning_rate": SHORT_FIRST["learning_rate"]}
"""Factors of the second: what the first one changed, without its smaller capacity."""
KL_FROM_ZERO = 1e-3
"""Centre of the draws when the reference has no KL term."""
KL_OFF = 0.25
"""Share of draws without a KL term where the reference has none."""
CANDIDATES = 6
"""Draws of which the one farthest from all earlier phases is taken: few, as many would always pick a corner."""
_BASES = (2, 3, 5, 7, 11, 13)
_LINEAR = frozenset({"temperature", "clip_range"})


def draw(
    reference: Configuration, earlier: Sequence[Configuration], bounds: Mapping[str, Bounds], seed: int
) -> Configuration:
    """A configuration for a scratch phase: fixed parameters and everything not in `SPANS` as in `reference`.

    Halton points, rotated by the seed, of which the farthest from `earlier` is taken; unlike all of them where the
    bounds allow it. As many points lie above the reference as below it: where no more is allowed, they keep its value.
    """
    ranges = {name: _range(name, reference, bounds) for name in SPANS}
    points = _halton(len(earlier), seed)
    known = [_position(configuration, ranges) for configuration in earlier]
    taken = {tuple(configuration.values().items()) for configuration in earlier}
    pool: list[Configuration] = []
    for _ in range(CANDIDATES * 8):
        candidate = fitted(reference, _values(next(points), ranges, reference), bounds)
        if tuple(candidate.values().items()) not in taken:
            pool.append(candidate)
        if len(pool) == CANDIDATES:
            break
    if not pool:
        return reference
    return max(pool, key=lambda candidate: _distance(_position(candidate, ranges), known))


def short_first(root: Configuration, bounds: Mapping[str, Bounds]) -> Configuration | None:
    """What the paper found of capacity, from the start: little at first, as it accumulates later (section 4.3.2).

    Short responses make cheap steps, so that each may have more of them, and bear a higher learning rate. None where
    the bounds allow no shorter ones.
    """
    start = _times(root, SHORT_FIRST, bounds)
    return start if start.max_response_length < root.max_response_length else None


def fast(root: Configuration, bounds: Mapping[str, Bounds]) -> Configuration | None:
    """The doubt about `short_first`: all the capacity that the root has, and its higher learning rate alone.

    Of the two, one tells what the other is worth. None where the bounds allow no higher rate.
    """
    start = _times(root, FAST, bounds)
    return start if start.learning_rate > root.learning_rate else None


def _times(root: Configuration, factors: Mapping[str, float], bounds: Mapping[str, Bounds]) -> Configuration:
    return fitted(root, {name: Move(name, factor).applied(root) for name, factor in factors.items()}, bounds)


def _range(name: str, reference: Configuration, bounds: Mapping[str, Bounds]) -> tuple[float, float]:
    low, high = limits(name, bounds)
    own, centre = bounds.get(name, Bounds()), float(reference.value(name)) or KL_FROM_ZERO
    first, last = centre * SPANS[name][0], centre * SPANS[name][1]
    # Limits of the search that are wider say that more is allowed, not that it is likely: half of the way, as a factor.
    if own.low is not None and 0 < own.low < first:
        first = math.sqrt(first * own.low)
    if own.high is not None and own.high > last:
        last = math.sqrt(last * own.high)
    if name in REACH:
        first, last = max(first, REACH[name][0]), min(last, REACH[name][1])
    first, last = min(max(first, low), high), min(max(last, low), high)
    return min(first, last), max(first, last)


def _values(
    point: Sequence[float], ranges: Mapping[str, tuple[float, float]], reference: Configuration
) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    for share, (name, (low, high)) in zip(point, ranges.items(), strict=True):
        if name == "batch_size":
            # Powers of two of the reference, so that it still divides among mini-batches and devices.
            factors = [f for f in (0.25, 0.5, 1.0, 2.0, 4.0) if low <= reference.batch_size * f <= high] or [1.0]
            values[name] = max(1, int(reference.batch_size * factors[min(int(share * len(factors)), len(factors) - 1)]))
        elif name == "kl_coefficient" and reference.kl_coefficient == 0 and share < KL_OFF:
            values[name] = 0.0
        else:
            centre = min(max(float(reference.value(name)) or KL_FROM_ZERO, low), high)
            value = _around(share, low, centre, high, linear=name in _LINEAR or low <= 0)
            values[name] = round(value) if name == "max_response_length" else rounded(value)
    return values


def _around(share: float, low: float, centre: float, high: float, *, linear: bool) -> float:
    """A value below the centre for the lower half of the shares, above it for the upper one."""
    first, last, part = (low, centre, 2 * share) if share < 0.5 else (centre, high, 2 * share - 1)  # noqa: PLR2004
    return first + part * (last - first) if linear else first * (last / first) ** part


def _position(configuration: Configuration, ranges: Mapping[str, tuple[float, float]]) -> tuple[float, ...]:
    position = []
    for name, (low, high) in ranges.items():
        value = float(configuration.value(name))
        if name in _LINEAR or low <= 0:
            share = (value - low) / (high - low) if high > low else 0.0
        else:
            share = math.log(max(value, low / 10) / low) / math.log(high / low) if high > low else 0.0
        position.append(min(max(share, -1.0), 2.0))
    return tuple(position)


def _distance(position: tuple[float, ...], known: Sequence[tuple[float, ...]]) -> float:
    return min((math.dist(position, other) for other in known), default=0.0)


def _halton(start: int, seed: int) -> Iterator[tuple[float, ...]]:
    random = Random(f"scratch:{seed}")  # noqa: S311 - repeatable, not secret
    rotation = [random.random() for _ in _BASES]
    index = start * CANDIDATES
    while True:
        index += 1
        yield tuple((_radical(index, base) + turn) % 1.0 for base, turn in zip(_BASES, rotation, strict=True))


def _radical(index: int, base: int) -> float:
    value, weight = 0.0, 1.0 / base
    while index:
        index, digit = divmod(index, base)
        value += digit * weight
        weight /= base
    return value
