"""Agent calls in the background: a slow model never blocks the watch over the jobs."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_WORKERS = 4
_PROMPT_SECONDS = 0.2
"""How long a tick waits for answers that come at once, as rules do; a model's come in a later tick."""


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


class Desk:
    """Questions under way. Used from one thread.

    Nothing here is kept on disk: after a crash, open questions follow from the tree and are asked again.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="agent")
        self._open: dict[Question, Future[object]] = {}

    def ask(self, question: Question, call: Callable[[], object]) -> None:
        """Start a call unless this question is under way."""
        if question not in self._open:
            self._open[question] = self._pool.submit(call)

    def take(self) -> dict[Question, Answer]:
        """Answers that have come in, each handed out once; waits a moment for those that come at once."""
        if self._open:
            wait(self._open.values(), timeout=_PROMPT_SECONDS)
        done = {key: future for key, future in self._open.items() if future.done()}
        for key in done:
            del self._open[key]
        return {key: _answer(future) for key, future in done.items()}

    def close(self) -> None:
        """Give up on what is under way; its answers would be asked for again."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _answer(future: Future[object]) -> Answer:
    error = future.exception()
    if error is None:
        return Answer(value=future.result())
    if isinstance(error, Exception):
        return Answer(error=error)
    raise error
