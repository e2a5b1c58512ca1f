"""One chain problem: a start digit and operations modulo 10, worked through from left to right."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmzero_hpc.tasks.base import Split

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

MODULUS: Final = 10


@dataclass(frozen=True, slots=True)
class Family:
    """Problems of one kind: `shortest` to `longest` operations, each drawn from `operators`.

    The answer repeats `answer_values` running values, from the last: guessing two is right in 1 of 100.
    """

    name: str
    shortest: int
    longest: int
    operators: str
    answer_values: int = 2


SHORT: Final = Family("short", 2, 4, "+")
LONG: Final = Family("long", 12, 16, "+*")
FAMILIES: Final = (SHORT, LONG)


@dataclass(frozen=True, slots=True)
class Problem:
    """`operations` applied one after the other to `start`, modulo 10. Operands are 1 to 9."""

    start: int
    operations: tuple[tuple[str, int], ...]
    answer_values: int = 2

    @property
    def prompt(self) -> str:
        """The problem as text: `9+4*6>`."""
        return str(self.start) + "".join(f"{operator}{operand}" for operator, operand in self.operations) + ">"

    @property
    def values(self) -> tuple[int, ...]:
        """The right running values, one after each operation."""
        values = []
        value = self.start
        for operator, operand in self.operations:
            value = apply(operator, value, operand)
            values.append(value)
        return tuple(values)

    @property
    def answer(self) -> str:
        """The last running values: `38`."""
        return "".join(str(value) for value in self.values[-self.answer_values :])

    @property
    def solution(self) -> str:
        """The shortest derivation that the reward accepts from a policy that works step by step: `+4=3*6=8#38`."""
        return self.derivation(self.values)

    def derivation(self, values: Sequence[int]) -> str:
        """The text that derives `values`, right or wrong, and ends with the answer."""
        steps = (
            f"{operator}{operand}={value}" for (operator, operand), value in zip(self.operations, values, strict=True)
        )
        return "".join(steps) + "#" + "".join(str(value) for value in values[-self.answer_values :])


def apply(operator: str, value: int, operand: int) -> int:
    """One operation modulo 10."""
    return (value + operand if operator == "+" else value * operand) % MODULUS


def draw(random: Random, family: Family, split: Split) -> Problem:
    """A problem of `family` that belongs to `split`; length first, so that all splits have the same lengths."""
    length = random.randint(family.shortest, family.longest)
    while True:
        start = random.randrange(MODULUS)
        operations = tuple((random.choice(family.operators), random.randint(1, 9)) for _ in range(length))
        problem = Problem(start, operations, family.answer_values)
        if split_of(problem.prompt) is split:
            return problem


def split_of(prompt: str) -> Split:
    """The one split that a prompt may occur in, by its hash: half train, a fifth validation, the rest test.

    There are only 810 prompts of two operations; the shares leave each split more of them than it needs distinct.
    """
    share = hashlib.sha256(prompt.encode()).digest()[0]
    if share < 128:  # noqa: PLR2004 - of 256
        return Split.TRAIN
    return Split.VALIDATION if share < 180 else Split.TEST  # noqa: PLR2004 - of 256
