"""What the head of a job on several machines tells the other machines: one small file for each run.

Shared file systems cache. The file is there from the start and replaced whole, and readers open it anew each time,
which is what makes NFS and Lustre ask the server. A beat of the head changes the file's time only: it needs no space.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.atomic import write_bytes
from llmzero_hpc.store.records import decoded, encoded

if TYPE_CHECKING:
    from pathlib import Path

BEAT_LOOKS = 8
"""The head says that it is alive each time it has looked so often for a newer run."""
SILENT_LOOKS = 300
"""A head that nothing has been heard of for so many looks is gone."""


@dataclass(frozen=True, slots=True)
class HeadWord:
    """The head of the job `job_id` (empty without Slurm). `ray_address` is where its Ray listens, once it does."""

    job_id: str
    ray_address: str = ""
    ended: bool = False


class HeadFile:
    """The writing end."""

    def __init__(self, path: Path, job_id: str) -> None:
        """Raises StorageError: the file system refused."""
        self._path = path
        self._say(HeadWord(job_id))

    def listens(self, ray_address: str) -> None:
        """Raises StorageError: the file system refused."""
        self._say(replace(self._word, ray_address=ray_address))

    def beat(self) -> None:
        """Say that the head is alive."""
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def end(self) -> None:
        """Let the others go. Where even this cannot be written, silence tells them."""
        with contextlib.suppress(StorageError):
            self._say(replace(self._word, ended=True))

    def _say(self, word: HeadWord) -> None:
        self._word = word
        write_bytes(self._path, encoded(word))


class HeadReader:
    """The reading end, on another machine whose clock may differ: it compares times of the file with each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beat: tuple[int, int] | None = None
        self._heard_at = time.monotonic()

    def read(self) -> HeadWord | None:
        """The head's last word; None while there is none, or it cannot be read."""
        try:
            with self._path.open("rb") as stream:
                status, data = os.fstat(stream.fileno()), stream.read()
        except OSError:
            return None
        beat = (status.st_ino, status.st_mtime_ns)
        if self._beat != beat:
            self._beat, self._heard_at = beat, time.monotonic()
        return decoded(HeadWord, data)

    def silent_seconds(self) -> float:
        """How long nothing new has been heard."""
        return time.monotonic() - self._heard_at
