"""How sure a difference is: bootstrap intervals of means, and effect sizes of pairs. Every draw follows from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from statistics import fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 10_000
LEVEL = 0.95
LEAST_PAIRS = 4
"""With fewer a percentile interval is much too narrow, so that nothing is concluded from it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its percentile bootstrap interval at `LEVEL`; of a single value the interval is that value."""

    mean: float
    low: float
    high: float
    deviation: float
    """Sample standard deviation of the values; 0 for one."""
    count: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """The sum of one quantity over that of another on the same seeds, with its interval over seeds at `LEVEL`."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """One method minus another on the same seeds."""

    difference: Estimate
    wins: int
    """Pairs in which the first is better."""
    ties: int
    effect_size: float | None
    """Mean over standard deviation of the differences (Cohen's d_z); None where they do not vary."""
    p_value: float
    """Two-sided: how often a resampled mean lies on the other side of zero, doubled; 1 for fewer than two pairs."""

    @property
    def is_clear(self) -> bool:
        """Enough pairs, and an interval that leaves zero out."""
        return self.difference.count >= LEAST_PAIRS and (self.difference.low > 0 or self.difference.high < 0)


def estimate(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean of values and how sure it is.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no value to estimate from")
    means = _resampled_means(values, seed, resamples)
    tail = (1.0 - LEVEL) / 2.0
    return Estimate(
        fmean(values),
        _quantile(means, tail),
        _quantile(means, 1.0 - tail),
        stdev(values) if len(values) > 1 else 0.0,
        len(values),
    )


def paired(first: Sequence[float], second: Sequence[float], seed: int = 0) -> PairedDifference:
    """The first minus the second, pair by pair.

    Raises:
        ValueError: there is no pair, or one has no partner.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    found = estimate(differences, seed)
    means = _resampled_means(differences, seed, RESAMPLES)
    below, above = sum(mean <= 0 for mean in means), sum(mean >= 0 for mean in means)
    return PairedDifference(
        found,
        wins=sum(difference > 0 for difference in differences),
        ties=sum(difference == 0 for difference in differences),
        effect_size=found.mean / found.deviation if found.deviation > 0 else None,
        p_value=min(1.0, 2.0 * min(below, above) / len(means)) if len(differences) > 1 else 1.0,
    )


def ratio(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Ratio | None:
    """The sum of the first over the sum of the second; pairs are resampled together. None where the latter is 0.

    Raises:
        ValueError: one has no partner.
    """
    pairs = list(zip(first, second, strict=True))
    if any(other <= 0 for _, other in pairs) or not pairs:
        return None
    random = Random(seed)  # noqa: S311 - no cryptography
    draws = (pairs,) if len(pairs) == 1 else (random.choices(pairs, k=len(pairs)) for _ in range(RESAMPLES))
    ratios = sorted(_of_sums(draw) for draw in draws)
    tail = (1.0 - LEVEL) / 2.0
    return Ratio(_of_sums(pairs), _quantile(ratios, tail), _quantile(ratios, 1.0 - tail), len(pairs))


def _of_sums(pairs: Sequence[tuple[float, float]]) -> float:
    return math.fsum(one for one, _ in pairs) / math.fsum(other for _, other in pairs)


def _resampled_means(values: Sequence[float], seed: int, resamples: int) -> list[float]:
    if len(values) == 1:
        return [values[0]]
    random = Random(seed)  # noqa: S311 - no cryptography
    return sorted(math.fsum(random.choices(values, k=len(values))) / len(values) for _ in range(resamples))


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
