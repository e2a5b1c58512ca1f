"""The constants of the search, with the paper's values (appendix B.6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """What governs selection (DESIGN 4). The names in brackets are the paper's."""

    exploration: float = 1.414
    """Weight of the exploration term [C]."""
    shaping_temperature: float = 0.3
    """Temperature of the exponential shaping of scores [T]."""
    failure_weight: float = 0.5
    """[w_f]"""
    early_stop_weight: float = 0.3
    """[w_e]"""
    forgiven_failures: int = 2
    """[o_f]"""
    max_evolve_children: int = 2
    max_debug_children: int = 3
    max_debug_depth: int = 5
    min_scratch_ratio: float = 0.2
    """From-scratch nodes, root included, among all nodes [rho_min]; 0 turns injection off."""
