"""The constants of the search, with the paper's values (appendix B.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """What governs selection (appendices D.2 and D.3, section 3.3). The names in brackets are the paper's.

    Raises:
        ValueError: a value with which the equations mean nothing.
    """

    exploration: float = 1.414
    """Weight of the exploration term [C]."""
    shaping_temperature: float = 0.3
    """Temperature of the exponential shaping of scores [T]."""
    failure_weight: float = 0.5
    """Penalty for the share of failed runs [w_f]."""
    early_stop_weight: float = 0.3
    """Penalty for the share of early-stopped runs [w_e]."""
    forgiven_failures: int = 2
    """Failures that cost nothing [o_f]."""
    max_evolve_children: int = 2
    """Phases that may continue one phase; from-scratch phases take no place."""
    max_debug_children: int = 3
    """Repairs that are tried of one failed phase."""
    max_debug_depth: int = 5
    """Repairs of repairs in a row."""
    min_scratch_ratio: float = 0.2
    """From-scratch nodes, root included, among all nodes [rho_min]; 0 turns injection off."""
    single_stage: bool = False
    """Every phase starts from scratch and none is resumed: the paper's ablation without multi-stage composition."""

    def __post_init__(self) -> None:
        """Refuse what would stop or derail a search long after it was created."""
        for name in self.__slots__:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number of at least 0, not {value}")
        if self.shaping_temperature == 0:
            raise ValueError("shaping_temperature must be above 0")
        if self.max_evolve_children == 0:
            raise ValueError("max_evolve_children must be at least 1")
