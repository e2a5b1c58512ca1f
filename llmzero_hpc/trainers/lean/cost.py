"""What a GRPO step of this trainer costs, from its tokens: the same seconds on every machine, under every load.

The coefficients are a fit to the CPU time of steps on one core; `benchmarks/strategy/fit_cost.py` measures them anew
and says how well they fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one GRPO step.

    Attributes:
        decodings: passes over the batch that drew one token for each response that had not ended.
        generated: tokens drawn.
        trained: tokens, padding included, of passes with gradients.
        scored: likewise of passes by the base model, for KL.
    """

    decodings: float
    generated: float
    trained: float
    scored: float

    def named(self) -> dict[str, float]:
        """As raw metrics of the step."""
        return {f"work/{name}": float(value) for name, value in asdict(self).items()}


STEP_SECONDS: Final = 0.0077
"""Of a step without any work."""
UNIT_SECONDS: Final = Work(decodings=3.6e-4, generated=5.7e-6, trained=2.0e-5, scored=4.6e-6)
"""Of one unit of each kind of work."""


def modelled_seconds(work: Work) -> float:
    """CPU seconds of a step by the model."""
    units, done = UNIT_SECONDS.named(), work.named()
    return STEP_SECONDS + sum(units[name] * done[name] for name in units)
