"""Looking at something now and then, beside what the main thread does."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def looking(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Call `look` every so often, in a thread: a file system that hangs holds up neither the block nor its end."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            look()

    threading.Thread(target=repeat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
