"""The desk: each question under way once, and put again later to an agent that could not be asked."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest
from controller_world import Clock

from llmzero_hpc.agents.base import AgentUnavailableError
from llmzero_hpc.controller.desk import Answer, Desk, Question, QuestionKind

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 300
PROPOSAL = Question(QuestionKind.PROPOSE, 3)


def taken(desk: Desk) -> dict[Question, Answer]:
    """All answers to what is under way."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    found = desk.take()
    while desk.is_busy and time.monotonic() < deadline:
        desk.wait(1)
        found |= desk.take()
    return found


def unavailable(counted: list[float], clock: Clock, retry_seconds: float | None = None) -> Callable[[], object]:
    def call() -> object:
        counted.append(clock.now)
        raise AgentUnavailableError("nobody answers", retry_seconds=retry_seconds)

    return call


def test_a_question_under_way_is_not_asked_twice() -> None:
    desk, gate, calls = Desk(), threading.Event(), []

    def slow() -> str:
        calls.append(1)
        gate.wait(PATIENCE_SECONDS)
        return "answer"

    desk.ask(PROPOSAL, slow)
    desk.ask(PROPOSAL, slow)
    assert desk.take() == {}
    assert desk.is_busy
    gate.set()
    assert taken(desk) == {PROPOSAL: Answer("answer")}
    assert calls == [1]


def test_an_exception_is_an_answer() -> None:
    desk, error = Desk(), ValueError("no")

    def failing() -> object:
        raise error

    desk.ask(PROPOSAL, failing)
    assert taken(desk) == {PROPOSAL: Answer(error=error)}


def test_an_agent_that_cannot_be_asked_is_asked_again_ever_more_rarely() -> None:
    clock, asked = Clock(0.0), []
    desk = Desk(clock)
    for _ in range(4000):
        clock.now += 1
        desk.ask(PROPOSAL, unavailable(asked, clock))
        assert taken(desk) == {}
        assert desk.waits_for.startswith("nobody answers; asked again")
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(asked)]
    assert waits == [15, 30, 60, 120, 240, 480, 900, 900, 900]
    clock.now += 900
    desk.ask(PROPOSAL, lambda: "back")
    assert taken(desk) == {PROPOSAL: Answer("back")}
    assert desk.waits_for == ""


def test_it_waits_as_long_as_the_agent_says() -> None:
    clock, asked = Clock(0.0), []
    desk = Desk(clock)
    for _ in range(100):
        clock.now += 1
        desk.ask(PROPOSAL, unavailable(asked, clock, retry_seconds=70))
        taken(desk)
    assert asked == [1, 71]


def test_nothing_waits_for_what_nobody_asks_any_more() -> None:
    clock = Clock(0.0)
    desk = Desk(clock)
    desk.ask(PROPOSAL, unavailable([], clock))
    taken(desk)
    assert desk.waits_for
    other = Question(QuestionKind.JUDGE, 4, 10)
    desk.ask(other, lambda: "go on")
    assert taken(desk) == {other: Answer("go on")}
    assert desk.waits_for == ""


def test_after_closing_no_call_starts() -> None:
    desk, gate, started = Desk(), threading.Event(), []

    def slow() -> None:
        started.append(1)
        gate.wait(PATIENCE_SECONDS)

    for node in range(40):
        desk.ask(Question(QuestionKind.PROPOSE, node), slow)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(started) < 16 and time.monotonic() < deadline:
        time.sleep(0.01)
    desk.close()
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "agent":
            thread.join(PATIENCE_SECONDS)
    assert len(started) == 16


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_a_program_is_not_swallowed(error: BaseException) -> None:
    desk = Desk()

    def ending() -> object:
        raise error

    desk.ask(PROPOSAL, ending)
    desk.wait(PATIENCE_SECONDS)
    with pytest.raises(type(error)):
        desk.take()
