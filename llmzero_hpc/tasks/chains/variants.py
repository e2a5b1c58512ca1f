"""Variants of the chains task: which problems there are, in which order, and the policy that training starts from.

They are made for comparing strategies of training (docs/strategy-benchmark.md), and frozen: whoever changes one gives
it another name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmzero_hpc.tasks.chains.policy import RECIPE, Recipe
from llmzero_hpc.tasks.chains.problem import FAMILIES, SHORT, Family


@dataclass(frozen=True, slots=True)
class Variant:
    """A set of problems and its policy.

    Attributes:
        families: of validation and test, in turn.
        training: families of the training rows, in turn.
        recipe: of the policy.
    """

    families: tuple[Family, ...]
    training: tuple[Family, ...]
    recipe: Recipe


_WHOLE_TEXTS: Final = Recipe(
    derivation_steps=0, text_steps=900, text_batch=32, learning_rate=4e-3, longest_response=100
)
"""A policy that was taught by whole texts alone, and for longer than that of the demo."""

_MIDDLE: Final = Family("long", 10, 14, "+++*")

_SHORT_GUESSED: Final = Family("short", 2, 4, "+", answer_values=1)
_LONG_GUESSED: Final = Family("long", 8, 12, "+*", answer_values=1)

_RARE: Final = Family("rare", 4, 7, "+*")

VARIANTS: Final = {
    "two-lengths": Variant(FAMILIES, FAMILIES, _WHOLE_TEXTS),
    "near-tie": Variant(
        (SHORT, _MIDDLE),
        (SHORT, SHORT, _MIDDLE),
        Recipe(
            families=(SHORT, SHORT, _MIDDLE),
            derivation_steps=0,
            text_steps=900,
            text_batch=32,
            learning_rate=4e-3,
            again=0.8,
            longest_response=100,
        ),
    ),
    "trap": Variant(
        (_SHORT_GUESSED, _LONG_GUESSED),
        (_SHORT_GUESSED, _LONG_GUESSED),
        Recipe(
            families=(_SHORT_GUESSED, _LONG_GUESSED),
            derivation_steps=240,
            text_steps=500,
            learning_rate=6e-3,
            overthinking=0.0,
            direct=0.4,
        ),
    ),
    "exploration": Variant(
        (_RARE,),
        (_RARE,),
        Recipe(
            families=(_RARE,),
            derivation_steps=0,
            text_steps=900,
            text_batch=48,
            learning_rate=6e-3,
            wrong_facts=0.25,
            right_shown=(0.005,),
            overthinking=0.0,
        ),
    ),
}
"""By the name in `task.variant`; the policy is `builtin:chains-<name>`."""

DEMO: Final = Variant(FAMILIES, FAMILIES, RECIPE)
"""The problems of `two-lengths`, with the policy that is built soonest: `builtin:chains`."""
