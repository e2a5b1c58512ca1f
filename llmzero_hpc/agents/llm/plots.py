"""Which pictures a model is shown; `drawing` draws them, in a process of its own."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from llmzero_hpc.errors import MissingDependencyError
from llmzero_hpc.search.metrics import VALIDATION_SCORE

if TYPE_CHECKING:
    from llmzero_hpc.agents.base import ProposalRequest, StopRequest
    from llmzero_hpc.search.metrics import Series

_CURVES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Is it learning?", (VALIDATION_SCORE, "reward_mean")),
    ("How does the policy move?", ("kl", "entropy", "grad_norm", "clip_fraction")),
    (
        "What are the responses like?",
        ("response_length_mean", "response_clip_ratio", "zero_std_fraction", "policy_loss"),
    ),
)
_OVERLAYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Validation: this run against the best strategy", (VALIDATION_SCORE,)),
    ("Other metrics, for context", ("reward_mean", "kl", "entropy", "response_length_mean")),
)
_MOST_SUBTASKS = 6
_EARLIER = 2
"""Steps of earlier phases that are drawn, in lengths of the phase in question: older ones would only squeeze it."""
_TIMEOUT_SECONDS = 120.0

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One panel: a metric of the run and, in an overlay, of the best strategy."""

    metric: str
    run: Points
    best: Points = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """One image; `name` is a file name, `title` stands above its panels."""

    name: str
    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be drawn, without a word of how.

    Attributes:
        pictures: in the order in which a prompt names them.
        phase_starts: first step and label of each phase of the run, ascending.
        focus: first step of the phase in question; what lies before it is drawn in grey.
        first_step, last_step: ends of the axis.
        ends_at: where the run will end by itself; None when it has ended.
        target: the validation score to beat; None without one.
    """

    pictures: tuple[Picture, ...]
    phase_starts: tuple[tuple[int, str], ...]
    focus: int
    first_step: int
    last_step: int
    ends_at: int | None = None
    target: float | None = None


def curves(request: ProposalRequest) -> Order:
    """The parent's metrics, after those of the phases before it: at most four pictures, none without rows."""
    own = request.series.rows
    focus = own[0].step if own else request.parent.first_step
    last = own[-1].step if own else focus
    first = max(1, focus - _EARLIER * max(1, last - focus + 1))
    starts = [(phase.first_step, f"node {phase.node.id}") for phase in request.phases]
    groups = [*_CURVES, ("Validation by subtask", _subtasks(request.strategy))]
    return _within(
        Order(
            pictures=_pictures("curves", groups, request.strategy),
            phase_starts=tuple(starts or [(focus, f"node {request.parent.id}")]),
            focus=focus,
            first_step=first,
            last_step=last,
        )
    )


def overlay(request: StopRequest) -> Order:
    """The running phase against the best strategy on the steps of the strategy: at most two pictures."""
    focus = request.node.first_step
    length = request.last_step - focus + 1
    # The end of the best strategy is on the picture, also where this run began long after it.
    ends = [row.step for row in request.best.rows[-1:]]
    first = max(1, min(focus - length, *(step - length // 2 for step in ends)))
    return _within(
        Order(
            pictures=_pictures("overlay", _OVERLAYS, request.strategy, request.best),
            phase_starts=((focus, f"node {request.node.id}"),),
            focus=focus,
            first_step=first,
            last_step=request.last_step,
            ends_at=request.last_step,
            target=request.best_score,
        )
    )


def draw(order: Order) -> tuple[bytes, ...]:
    """The pictures as PNG, drawn by another process.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ChildProcessError: that process failed; the message ends with what it said last.
        subprocess.TimeoutExpired: it took minutes.
    """
    if not order.pictures:
        return ()
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "matplotlib is not installed, so models can be shown no pictures",
            "pip install 'llmzero-hpc[agents]', or switch pictures off",
        )
    done = subprocess.run(
        [sys.executable, "-m", "llmzero_hpc.agents.llm.drawing"],
        input=ORDER.dump_json(order),
        capture_output=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ChildProcessError(f"drawing ended with code {done.returncode}: {said[-1] if said else 'no word'}")
    return tuple(base64.b64decode(text) for text in json.loads(done.stdout))


ORDER: TypeAdapter[Order] = TypeAdapter(Order)
"""How an order travels to the process that draws."""


def _pictures(
    stem: str, groups: Sequence[tuple[str, Sequence[str]]], run: Series, best: Series | None = None
) -> tuple[Picture, ...]:
    found: list[Picture] = []
    for title, names in groups:
        panels = tuple(
            Curve(name, run.points(name), best.points(name) if best else ()) for name in names if run.points(name)
        )
        if panels:
            found.append(Picture(f"{stem}_{len(found) + 1}.png", title, panels))
    return tuple(found)


def _within(order: Order) -> Order:
    """Only what lies on the axis."""

    def cut(points: Points) -> Points:
        return tuple(point for point in points if order.first_step <= point[0] <= order.last_step)

    # Of the phases that began before the axis, the last one is still under way where the axis begins.
    starts = {max(step, order.first_step): label for step, label in order.phase_starts if step <= order.last_step}
    return replace(
        order,
        phase_starts=tuple(sorted(starts.items())),
        pictures=tuple(
            replace(
                picture,
                curves=tuple(replace(curve, run=cut(curve.run), best=cut(curve.best)) for curve in picture.curves),
            )
            for picture in order.pictures
        ),
    )


def _subtasks(series: Series) -> list[str]:
    """Subtasks of the validation; where there are many, those that moved most."""

    def moved(name: str) -> float:
        values = [value for _, value in series.points(name)]
        return max(values) - min(values) if values else 0.0

    names = [name for name in series.names() if name.startswith(f"{VALIDATION_SCORE}/")]
    kept = sorted(names, key=lambda name: (-moved(name), name))[:_MOST_SUBTASKS]
    return [name for name in names if name in kept]
