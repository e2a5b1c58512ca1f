"""Following a search while it runs: a live picture in a terminal, one line an event elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmzero_hpc.store.events import read_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from llmzero_hpc.store.search_directory import SearchDirectory

_LOOKS_PER_SECOND = 2


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say what takes a while, on a terminal's error stream, until the block is left."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def waiting(what: str) -> Iterator[Callable[[float], None]]:
    """Say on a terminal's error stream what is being waited for; what it yields is told for how many seconds."""
    from rich.console import Console

    with Console(stderr=True).status(what) as shown:
        yield lambda seconds: shown.update(f"{what} ({seconds:.0f} s)")


@contextmanager
def following(directory: SearchDirectory, console: Console) -> Iterator[Callable[[], None]]:
    """Show the search until the block is left; what it yields is called whenever there may be something new."""
    if console.is_terminal:
        from rich.live import Live

        from llmzero_hpc.report.terminal import live_view

        with Live(live_view(directory.root), console=console, refresh_per_second=_LOOKS_PER_SECOND, transient=True):
            yield lambda: None
        return
    shown = len(read_events(directory))

    def print_new() -> None:
        nonlocal shown
        events = read_events(directory)
        for event in events[shown:]:
            moment = time.strftime("%H:%M:%S", time.localtime(event.time))
            where = "" if event.node is None else f" phase {event.node}"
            console.print(
                f"{moment}{where} {event.kind}: {event.message}", markup=False, highlight=False, soft_wrap=True
            )
        shown = len(events)

    try:
        yield print_new
    finally:
        print_new()
