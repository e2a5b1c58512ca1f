"""Whether a language model's server answers this machine: asked with short patience, and of a run that lives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.server_job import is_healthy

if TYPE_CHECKING:
    from llmzero_hpc.store.server_directory import Announcement, ServerDirectory

_SILENT_SECONDS = 120.0
"""How long a run may not confirm where it listens; network file systems show it up to a minute late."""
_OLDEST_SECONDS = 600.0
"""As that, for a word that is seen for the first time, by two machines' clocks."""


class ServerWatch:
    """Looks at one server from one thread.

    Where a run has fallen silent nobody is asked: another user's program may listen at its port by now, and is not to
    be shown the key.
    """

    def __init__(self, server: ServerDirectory) -> None:
        self._server = server
        self._word: tuple[Announcement, float] | None = None
        self._heard_at = 0.0

    def announced(self) -> Announcement | None:
        """Where the newest run says that it listens; None while there is none that lives.

        Raises:
            StorageError: the folder cannot be read.
        """
        number = self._server.newest()
        if not number or self._server.ending(number) is not None:
            return None
        word = self._server.announcement(number)
        if word is None:
            return None
        said, beat = word
        now = time.monotonic()
        if self._word is None or self._word[0].started_at != said.started_at:
            self._heard_at = now if abs(time.time() - beat) < _OLDEST_SECONDS else now - _SILENT_SECONDS
        elif word != self._word:
            self._heard_at = now
        self._word = word
        return said if now - self._heard_at < _SILENT_SECONDS else None

    def answering(self) -> Announcement | None:
        """Where it answers now; None where it does not. Takes seconds at most. Raises StorageError."""
        said = self.announced()
        return said if said is not None and said.up_at is not None and is_healthy(said.host, said.port) else None
