"""Who may call the endpoint now: so many at once, nobody while it asks for patience or is known to be down."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.agents.llm.failures import EndpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Patience:
    """Waits in seconds.

    Attributes:
        first_pause, longest_pause: before a call is repeated; doubled each time.
        failures: calls in a row that failed with all their repetitions, after which the endpoint counts as down.
        first_rest, longest_rest: how long nobody calls one that is down; doubled each time.
    """

    first_pause: float = 1.0
    longest_pause: float = 60.0
    failures: int = 2
    first_rest: float = 30.0
    longest_rest: float = 900.0


class Gate:
    """A circuit breaker with a limit on calls at once. Safe from several threads.

    After a rest one call goes through; it decides for the others.
    """

    def __init__(self, places: int, patience: Patience, clock: Callable[[], float]) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._not_before = clock()
        self._failures = 0
        self._rests = 0
        self._resting_until: float | None = None
        self._probing = False
        self._reason = ""

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places, waited for."""
        with self._places:
            try:
                yield
            finally:
                with self._lock:
                    self._probing = False

    def pause(self) -> float:
        """Seconds to wait before the next attempt, as somebody was told to.

        Raises:
            EndpointError: the endpoint is down as far as is known, or wants to be left alone for long.
        """
        with self._lock:
            now = self._clock()
            if self._resting_until is not None:
                if now < self._resting_until or self._probing:
                    raise EndpointError(self._reason, retry_seconds=max(1.0, self._resting_until - now))
                self._probing = True
            left = max(0.0, self._not_before - now)
            if left > self._patience.longest_pause:
                self._probing = False
                raise EndpointError(self._reason, retry_seconds=left)
            return left

    def hold_back(self, seconds: float, reason: str) -> None:
        """The endpoint asked for patience: nobody calls before."""
        with self._lock:
            self._not_before = max(self._not_before, self._clock() + seconds)
            self._reason = reason

    def answered(self) -> None:
        """It answers; all is well."""
        with self._lock:
            self._failures = self._rests = 0
            self._resting_until, self._probing = None, False

    def gave_up(self, reason: str) -> None:
        """A call failed for good, with all its repetitions."""
        with self._lock:
            self._failures += 1
            if self._probing or self._failures >= self._patience.failures:
                rest = min(self._patience.first_rest * 2**self._rests, self._patience.longest_rest)
                self._rests, self._probing, self._reason = self._rests + 1, False, reason
                self._resting_until = self._clock() + rest
