"""Agent calls in the background: a slow model never blocks the watch over the jobs; one that is down is waited for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import AgentUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

_PLACES = 16
"""Calls at once; an agent that wants fewer lets the others wait."""
_PROMPT_SECONDS = 0.2
"""How long a tick waits for answers that come at once, as rules do; a model's come in a later tick."""
_FIRST_WAIT, _LONGEST_WAIT = 15.0, 900.0
"""Seconds before a question is put again to an agent that could not be asked; doubled each time."""


class QuestionKind(StrEnum):
    """Which agent is asked."""

    PROPOSE = "propose"
    JUDGE = "judge"
    REPAIR = "repair"


@dataclass(frozen=True, slots=True)
class Question:
    """Identity of a question: one about the same thing is asked once at a time. `step` is that of a judgement."""

    kind: QuestionKind
    node: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returned, or the exception it raised."""

    value: object = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Postponed:
    times: int
    until: float
    reason: str


class Desk:
    """Questions under way, and those that wait until their agent can be asked again. Used from one thread.

    Nothing here is kept on disk: after a crash, open questions follow from the tree and are asked again.

    Args:
        clock: seconds from any start, for the waits.
        prompt_seconds: how long `take` waits for answers that come at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, prompt_seconds: float = _PROMPT_SECONDS) -> None:
        self._clock = clock
        self._prompt_seconds = prompt_seconds
        self._places = threading.BoundedSemaphore(_PLACES)
        self._closed = threading.Event()
        self._open: dict[Question, Future[object]] = {}
        self._postponed: dict[Question, _Postponed] = {}
        self._wanted: set[Question] = set()

    def ask(self, question: Question, call: Callable[[], object]) -> None:
        """Start a call, unless this question is under way, or waits for an agent that could not be asked."""
        self._wanted.add(question)
        postponed = self._postponed.get(question)
        if question in self._open or (postponed is not None and self._clock() < postponed.until):
            return
        future: Future[object] = Future()
        self._open[question] = future
        # A daemon thread: a model that thinks for half an hour must not keep a controller from ending.
        threading.Thread(target=self._carry_out, args=(future, call), daemon=True, name="agent").start()

    def take(self) -> dict[Question, Answer]:
        """Answers that have come in, each handed out once; waits a moment for those that come at once.

        An agent that could not be asked gave none: its question may be put again after a while, longer each time.
        """
        if self._open:
            wait(self._open.values(), timeout=self._prompt_seconds)
        answers = {question: _answer(future) for question, future in self._open.items() if future.done()}
        # What nobody asks any more waits for nothing.
        self._postponed = {question: held for question, held in self._postponed.items() if question in self._wanted}
        self._wanted = set()
        for question, answer in list(answers.items()):
            del self._open[question]
            if isinstance(answer.error, AgentUnavailableError):
                self._postpone(question, answer.error)
                del answers[question]
            else:
                self._postponed.pop(question, None)
        return answers

    def ask_again(self) -> None:
        """Whoever could not be asked can be now: no question waits any longer."""
        self._postponed = {question: replace(held, until=0.0) for question, held in self._postponed.items()}

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._open)

    def wait(self, seconds: float) -> None:
        """Return when an answer may be taken, or after `seconds`."""
        if self._open:
            wait(self._open.values(), timeout=seconds, return_when="FIRST_COMPLETED")

    @property
    def waits_for(self) -> str:
        """Why questions wait, for people; empty when none does."""
        held = sorted(self._postponed.values(), key=lambda one: one.until)
        if not held:
            return ""
        left = max(0.0, held[0].until - self._clock())
        return f"{held[0].reason}; asked again {'now' if left == 0 else f'in {left:.0f} s'}"

    def close(self) -> None:
        """Give up on what is under way; its answers would be asked for again."""
        self._closed.set()

    def _carry_out(self, future: Future[object], call: Callable[[], object]) -> None:
        with self._places:
            if self._closed.is_set():
                return
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that takes the answers
                future.set_exception(error)

    def _postpone(self, question: Question, error: AgentUnavailableError) -> None:
        times = self._postponed[question].times + 1 if question in self._postponed else 1
        pause = min(_FIRST_WAIT * 2 ** (times - 1), _LONGEST_WAIT)
        self._postponed[question] = _Postponed(
            times, self._clock() + max(pause, error.retry_seconds or 0.0), error.message
        )


def _answer(future: Future[object]) -> Answer:
    error = future.exception()
    if error is None:
        return Answer(value=future.result())
    if isinstance(error, Exception):
        return Answer(error=error)
    raise error
