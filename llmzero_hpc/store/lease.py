"""The lease: one controller at a time, from any login node.

The file `lease` names its holder and is never changed in place. To take a lease over, a process creates
`.lease-<token of the lease it takes>`, which only one can, and is then the holder; only after that it replaces `lease`
for people and for speed. So the holder is found by following tokens from `lease` to the end, a kill between the two
steps loses nothing, and a late write by a process that lost cannot undo a take-over. Releasing is a take-over by
nobody. Nothing here needs file locks, which network file systems often lack.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.errors import LeaseError
from llmzero_hpc.store.atomic import TEMPORARY_PREFIX, discard, link_new, read_bytes, refusals, sync_folder, write_aside
from llmzero_hpc.store.process import ProcessIdentity
from llmzero_hpc.store.records import decoded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory

_SUCCESSOR_PREFIX = ".lease-"
_LEFTOVER_SECONDS = 600.0
_TRIES = 100
_RIVAL = "another controller is starting at this moment; see `llmzero-hpc status`"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease. `process` is None once it was released; times are seconds since the epoch."""

    token: str
    process: ProcessIdentity | None
    acquired_at: float
    renewed_at: float

    @property
    def is_gone(self) -> bool:
        """It was released, or its process has certainly ended."""
        return self.process is None or self.process.is_gone()


class Lease:
    """The right to drive a search. Made by `acquire`; used by one thread."""

    def __init__(self, directory: SearchDirectory, holder: Holder, now: Callable[[], float]) -> None:
        """Use `acquire`."""
        self._directory = directory
        self._holder = holder
        self._now = now

    @classmethod
    def acquire(cls, directory: SearchDirectory, now: Callable[[], float], take_over: bool = False) -> Lease:
        """Take the lease if it is free, or if its holder has certainly ended.

        Args:
            directory: the search.
            now: the clock, seconds since the epoch.
            take_over: take it from whoever holds it at the start of this call; its next `check` fails.

        Raises:
            LeaseError: somebody holds it, or was faster.
            StorageError: the file system refused.
        """
        path = _file(directory)
        own = Holder(os.urandom(8).hex(), ProcessIdentity.own(), now(), now())
        with refusals("writing", path):
            first = holder_of(directory)
            intended = None if first is None else first.token
            for _ in range(_TRIES):
                current = holder_of(directory)
                if current is not None and not current.is_gone and not (take_over and current.token == intended):
                    raise _held(directory, current, now())
                if _succeed(directory, current, own):
                    _sweep(directory)
                    return cls(directory, own, now)
        raise LeaseError(f"the lease of {directory.root} changes hands too fast", _RIVAL)

    @property
    def token(self) -> str:
        """What tells this lease from any other."""
        return self._holder.token

    def check(self) -> None:
        """Whether it is still ours; called before every commit.

        Raises:
            LeaseError: another controller took it over, or it is gone.
            StorageError: it cannot be read.
        """
        current = holder_of(self._directory)
        if current is None:
            raise LeaseError(f"the lease of {self._directory.root} is gone", "somebody removed it; start again")
        if current.token != self._holder.token:
            raise LeaseError(
                f"another controller took over {self._directory.root}: {_described(current)}",
                "this one ends; jobs go on",
            )

    def renew(self) -> None:
        """Check, and show that the holder lives.

        Raises:
            LeaseError: as `check`.
            StorageError: the file system refused.
        """
        self.check()
        path = _file(self._directory)
        now = self._now()
        with refusals("renewing", path):
            # The time of the file, not its content: were it another's by now, nothing would be lost.
            os.utime(path, (now, now))

    def release(self) -> None:
        """Give it back; does nothing when another controller has it.

        Raises:
            StorageError: the file system refused.
        """
        with refusals("releasing", _file(self._directory)):
            current = holder_of(self._directory)
            if current is not None and current.token == self._holder.token:
                nobody = Holder(os.urandom(8).hex(), None, self._holder.acquired_at, self._now())
                _succeed(self._directory, current, nobody)


def holder_of(directory: SearchDirectory) -> Holder | None:
    """Who holds the lease, or None where nobody ever did.

    Raises:
        StorageError: it cannot be read.
    """
    holder = _read(_file(directory))
    seen: set[str] = set()
    while holder is not None and holder.token not in seen:
        seen.add(holder.token)
        successor = _read(_successor_file(directory, holder.token))
        if successor is None:
            return holder
        holder = successor
    return holder


def _succeed(directory: SearchDirectory, current: Holder | None, new: Holder) -> bool:
    """Become the holder after `current`; of several processes that try, one succeeds. OSError passes through."""
    path = _file(directory)
    temporary = write_aside(path, _encoded(new))
    try:
        if current is None:
            won = link_new(temporary, path)
        else:
            # The second look is for the case that our view was old and the successors' files are swept already.
            won = link_new(temporary, _successor_file(directory, current.token)) and _holds(directory, new)
        if not won:
            return False
        os.utime(temporary, (new.renewed_at, new.renewed_at))
        if current is not None:
            os.replace(temporary, path)  # noqa: PTH105 - the tests kill at every call of os
        sync_folder(path.parent)
    finally:
        discard(temporary)
    return True


def _holds(directory: SearchDirectory, holder: Holder) -> bool:
    current = holder_of(directory)
    return current is not None and current.token == holder.token


def _file(directory: SearchDirectory) -> Path:
    return directory.root / "lease"


def _successor_file(directory: SearchDirectory, token: str) -> Path:
    return directory.root / f"{_SUCCESSOR_PREFIX}{token}"


def _encoded(holder: Holder) -> bytes:
    content = asdict(holder)
    del content["renewed_at"]
    return (json.dumps(content) + "\n").encode()


@dataclass(frozen=True, slots=True)
class _Content:
    token: str
    process: ProcessIdentity | None
    acquired_at: float


def _read(path: Path) -> Holder | None:
    data = read_bytes(path)
    if data is None:
        return None
    with refusals("reading", path):
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
    content = decoded(_Content, data)
    if content is None:
        # Nobody can say who this is: held by a stranger, until somebody takes it over under a name of its own.
        stranger = ProcessIdentity("an unknown host (the file is damaged)", "", 0, 0, "")
        return Holder(f"damaged-{status.st_ino:x}-{len(data):x}", stranger, status.st_mtime, status.st_mtime)
    return Holder(content.token, content.process, content.acquired_at, status.st_mtime)


def _described(holder: Holder) -> str:
    process = holder.process
    return "nobody" if process is None else f"process {process.pid} on {process.host}"


def _held(directory: SearchDirectory, holder: Holder, now: float) -> LeaseError:
    age = max(0.0, now - holder.renewed_at)
    return LeaseError(
        f"{directory.root} is driven by {_described(holder)}, last heard of {age:.0f} s ago",
        "`llmzero-hpc stop` ends it; `--take-over` takes the search from it if it is gone for good",
    )


def _sweep(directory: SearchDirectory) -> None:
    """Remove what killed processes left, ten minutes later by the clock of the file system."""
    fresh = _file(directory).stat().st_ctime
    for path in directory.root.iterdir():
        if path.name.startswith((TEMPORARY_PREFIX, _SUCCESSOR_PREFIX)):
            try:
                if path.stat().st_ctime < fresh - _LEFTOVER_SECONDS:
                    discard(path)
            except FileNotFoundError:
                continue
