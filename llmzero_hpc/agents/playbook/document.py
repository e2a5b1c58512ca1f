"""The playbook as a page for people, from the rules themselves: `python -m llmzero_hpc.agents.playbook.document`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llmzero_hpc.agents.playbook.error_analyzer import FAILURES, UNKNOWN
from llmzero_hpc.agents.playbook.moves import LEAST_RESPONSES, REACH
from llmzero_hpc.agents.playbook.rules import RULES

if TYPE_CHECKING:
    from llmzero_hpc.agents.playbook.moves import Move

_HEAD = """\
# The playbook

Rules over training metrics that propose, stop and repair phases: deterministic, free, offline. No language model
takes part. The rules restate findings of the LLMZero paper (arXiv 2606.18388); where one goes beyond them, its source
says so. This page is written by `python -m llmzero_hpc.agents.playbook.document`; a test keeps it equal to the code.

## Proposals

The rules are asked in this order. The first that fires leads; later ones contribute changes of other parameters when
they do not pull the other way (tighten against loosen). A second child of the same parent takes the next change, or
turns a regularization parameter round when a sibling that moved it lost; against damage the rules insist instead.
What a sibling won with is taken over. Capacity (response length, rollouts) is not turned round. Values stay within the
bounds; a change whose first parameter cannot move is skipped. By itself the playbook keeps temperature
({reach[temperature]}), clip range ({reach[clip_range]}) and KL coefficient ({reach[kl_coefficient]}) in their usual
ranges, and makes no batch smaller than {least} responses; only where next to no prompt teaches anything it goes as far
as the search allows.

The child resumes from the parent's last checkpoint when that is as good as the best within the noise, else from the
best; after damage, from the best one before it began. Its steps are the parent's, times the root of the parent's
tokens a step over its own, between half and twice; epochs follow from steps and batch size.

The first from-scratch phase after the root takes the paper's prior that capacity accumulates: a third of the response
limit, twice the learning rate and batch. The second doubts it: the root with twice the learning rate alone. The others
believe nothing: learning rate, KL coefficient, response limit, temperature, clip range and batch size are drawn to fill
the space around the best configuration, as many below as above it; where no more is allowed, as it is.

"""

_STOPPER = """
## Early stops

Only the validation scores of a phase decide. It is stopped when they collapsed, or when an optimistic guess of what
it comes to stays below the best score so far: the best of the recent scores, plus the best recent rate of improvement
carried on until its last step, plus two standard deviations of the observed scatter, or 5 % of the best score where
that is more. Where the best strategy has its score at a later step the guess reaches until there, as other phases may
continue this one. It goes on while it has fewer than two validations or a quarter of its steps, while it is not
clearly behind the best strategy at the same step, while it gains speed, and always once it has reached the best
score.

## Repairs

A failure is recognized by its log. Repairs are tried from left to right, none twice for the same failure; the number
of steps stays the same.

"""


def page() -> str:
    """The whole page in Markdown."""
    rules = _table(
        ("rule", "pathology", "fires when", "changes", "resumes from", "source"),
        [
            (
                f"`{rule.name}`", rule.pathology, rule.fires_when, "; or ".join(_moves(r) for r in rule.remedies),
                rule.resume.value, rule.source,
            )
            for rule in RULES
        ],
    )  # fmt: skip
    failures = _table(
        ("failure", "diagnosis", "repairs"),
        [
            (
                f"`{failure.name}`",
                failure.diagnosis,
                "; ".join([*_first(failure.name, failure.retry), *map(_moves, failure.ladder)]),
            )
            for failure in (*FAILURES, UNKNOWN)
        ],
    )
    reach = {name: f"{low:g} to {high:g}" for name, (low, high) in REACH.items()}
    return _HEAD.format(reach=reach, least=LEAST_RESPONSES) + rules + _STOPPER + failures


def _first(name: str, retry: bool) -> list[str]:
    return (
        ["as it is"]
        if retry
        else ["drop the overrides that the log names; drop all"]
        if name == "unknown_argument"
        else []
    )


def _moves(moves: tuple[Move, ...]) -> str:
    return ", ".join(move.words for move in moves)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page())
