"""Observations that cite the metrics: how a model states them, how they are kept as text, whether the data agree.

`str(observation)` is what stands in a rationale's evidence; `parse` reads it back, so that a report can check it later:

    found = parse(evidence)
    verdict = check(found, series) if found else None      # no citation: nothing to check
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmzero_hpc.search.metrics import Series

_SHOWN_DIGITS = 3
"""Significant digits that a model sees of each value (`summaries`)."""
_LOOSEST = 0.1
"""Share of the cited value that rounding may hide: 0.4 stands for 0.41, but 1 does not stand for 1.4."""
_ZERO = 0.01
"""Share of the metric's largest magnitude below which a value is as good as the 0 that was cited."""


class Statistic(StrEnum):
    """What of a metric is cited over a range of steps."""

    FIRST = "first"
    LAST = "last"
    LOWEST = "lowest"
    HIGHEST = "highest"
    MEAN = "mean"
    CHANGE = "change"
    """Last minus first."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A statement about one metric over an inclusive range of the strategy's steps, with its number."""

    metric: str
    first_step: int
    last_step: int
    statistic: Statistic
    value: float
    meaning: str = ""
    """What it shows, in the model's words; one line."""

    def __str__(self) -> str:
        """The text from which `parse` makes an equal observation."""
        steps = (
            f"step {self.first_step}"
            if self.first_step == self.last_step
            else f"steps {self.first_step} to {self.last_step}"
        )
        text = f"{self.metric}, {steps}: {self.statistic} {self.value!r}"
        meaning = " ".join(self.meaning.split())
        return f"{text}; {meaning}" if meaning else text


class Outcome(StrEnum):
    """What became of a citation."""

    CONFIRMED = "confirmed"
    CONTRADICTED = "contradicted"
    """The data give another value."""
    NO_DATA = "no data"
    """The metric is unknown, or was not reported in these steps."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the data bear a citation out; `actual` is what they give, None without data."""

    outcome: Outcome
    actual: float | None = None


def check(observation: Observation, series: Series) -> Verdict:
    """Compare a citation with the data.

    A value agrees when it rounds to what was cited, digit by digit as written, where at most a tenth of the value
    counts as rounding; models see three significant digits and cannot cite more.
    """
    points = series.points(observation.metric)
    inside = [value for step, value in points if observation.first_step <= step <= observation.last_step]
    if not inside:
        return Verdict(Outcome.NO_DATA)
    actual = _statistic(observation.statistic, inside)
    largest = max(abs(value) for _, value in points)
    agrees = abs(observation.value - actual) <= _tolerance(observation, actual, inside, largest)
    return Verdict(Outcome.CONFIRMED if agrees else Outcome.CONTRADICTED, actual)


def parse(text: str) -> Observation | None:
    """The observation whose text this is; None for any other text."""
    found = _FORMAT.fullmatch(text)
    if found is None:
        return None
    first = int(found["first"])
    return Observation(
        metric=found["metric"],
        first_step=first,
        last_step=first if found["last"] is None else int(found["last"]),
        statistic=Statistic(found["statistic"]),
        value=float(found["value"]),
        meaning=found["meaning"] or "",
    )


_FORMAT = re.compile(
    r"(?P<metric>\S.*?), steps? (?P<first>-?\d{1,12})(?: to (?P<last>-?\d{1,12}))?: "
    rf"(?P<statistic>{'|'.join(Statistic)}) (?P<value>-?\d+(?:\.\d+)?(?:e[+-]?\d{{1,3}})?)(?:; (?P<meaning>.+))?"
)


def _statistic(statistic: Statistic, values: list[float]) -> float:
    match statistic:
        case Statistic.FIRST:
            return values[0]
        case Statistic.LAST:
            return values[-1]
        case Statistic.LOWEST:
            return min(values)
        case Statistic.HIGHEST:
            return max(values)
        case Statistic.MEAN:
            return fmean(values)
        case Statistic.CHANGE:
            return values[-1] - values[0]


def _tolerance(observation: Observation, actual: float, inside: list[float], largest: float) -> float:
    # A change is the difference of two rounded values, so it is as coarse as the larger of them.
    seen = max(abs(inside[0]), abs(inside[-1])) if observation.statistic is Statistic.CHANGE else abs(actual)
    shown = 10.0 ** (math.floor(math.log10(seen)) - _SHOWN_DIGITS + 1) if seen > 0 else 0.0
    if observation.value == 0:
        return max(shown, _ZERO * largest)
    return max(shown, min(_half_unit(observation.value), _LOOSEST * abs(observation.value)))


def _half_unit(value: float) -> float:
    """Half of the last digit's place, as the value is written shortest: 0.005 for 0.41, 50 for 1600."""
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return 0.5 * 10.0**exponent if isinstance(exponent, int) else 0.0
