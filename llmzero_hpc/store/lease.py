"""The lease: one controller at a time, from any login node.

The file `lease` names its holder and is never changed in place. To take a lease over, a process creates
`.lease-<token of the lease it takes>`, which only one can, and is then the holder; only after that it replaces `lease`
for people and for speed. So the holder is found by following tokens from `lease` to the end, a kill between the two
steps loses nothing, and a late write by a process that lost cannot undo a take-over. Releasing is a take-over by
nobody. Nothing here needs file locks, which network file systems often lack.

A process that sleeps through a take-over, for hours perhaps, still cannot write the tree. It makes the new `tree.json`
complete in a file aside, then looks whether the lease is its own, then renames. Whoever takes the lease removes such
files before it reads the tree. So either the rename came before the tree was read, or it finds nothing to rename.

How long a holder has been silent is the difference of two times that the file system gave: of the lease, which the
holder touches, and of a file made for the comparison. The clocks of login nodes do not matter.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.errors import LeaseError, StorageError
from llmzero_hpc.store.atomic import (
    TEMPORARY_PREFIX,
    discard,
    link_new,
    read_bytes,
    refusals,
    remove,
    sync_folder,
    write_aside,
)
from llmzero_hpc.store.process import ProcessIdentity
from llmzero_hpc.store.records import decoded

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.search_directory import SearchDirectory

_SUCCESSOR_PREFIX = ".lease-"
_LEFTOVER_SECONDS = 600.0
_PATIENCE_TICKS, _PATIENCE_SECONDS = 10, 600.0
_TRIES = 100
_RIVAL = "another controller is starting at this moment; see `llmzero-hpc status`"


@dataclass(frozen=True, slots=True)
class ControllerJob:
    """The job of the cluster in which a controller runs; `restarts` is how often the cluster requeued it."""

    job_id: str
    restarts: int

    def continues(self, other: ControllerJob | None) -> bool:
        """Whether this is that very job, requeued since."""
        return other is not None and self.job_id == other.job_id and self.restarts > other.restarts


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease. `process` is None once it was released; times are seconds since the epoch.

    `renewed_at` is by the clock of the file system; `job` is where the process runs, or ran, if in a job.
    """

    token: str
    process: ProcessIdentity | None
    acquired_at: float
    renewed_at: float
    job: ControllerJob | None = None

    @property
    def is_gone(self) -> bool:
        """It was released, or its process has certainly ended."""
        return self.process is None or self.process.is_gone()

    @property
    def place(self) -> str:
        """Where its process is, for people."""
        if self.process is None:
            return "nobody"
        process = f"process {self.process.pid} on {self.process.host}"
        return f"{process} in job {self.job.job_id}" if self.job else process


class Lease:
    """The right to drive a search. Made by `acquire`; used by one thread.

    Attributes:
        former: who held it before; None where nobody ever did.
    """

    def __init__(self, directory: SearchDirectory, holder: Holder, former: Holder | None) -> None:
        """Use `acquire`."""
        self._directory = directory
        self._holder = holder
        self.former = former

    @classmethod
    def acquire(
        cls,
        directory: SearchDirectory,
        *,
        job: ControllerJob | None = None,
        take_over: bool = False,
        after_silence: bool = True,
    ) -> Lease:
        """Take the lease if it is free or its holder is given up.

        That is: the holder has certainly ended, is an earlier run of this very job, or has been silent for more than
        `patience_seconds`.

        Args:
            directory: the search.
            job: the job in which this process runs.
            take_over: take it from whoever holds it at the start of this call; its next `check` fails.
            after_silence: whether silence counts.

        Raises:
            LeaseError: somebody holds it, or was faster.
            StorageError: the file system refused.
        """
        path = _file(directory)
        now = time.time()
        own = Holder(os.urandom(8).hex(), ProcessIdentity.own(), now, now, job)
        with refusals("writing", path):
            first = holder_of(directory)
            intended = None if first is None else first.token
            for _ in range(_TRIES):
                current = holder_of(directory)
                wanted = current is not None and take_over and current.token == intended
                if current is not None and not wanted and not _is_free(directory, current, job, after_silence):
                    raise _held(directory, current, after_silence=after_silence)
                if _succeed(directory, current, own):
                    _remove_trees_being_written(directory)
                    _sweep(directory)
                    return cls(directory, own, current)
        raise LeaseError(f"the lease of {directory.root} changes hands too fast", _RIVAL)

    @property
    def token(self) -> str:
        """What tells this lease from any other."""
        return self._holder.token

    def check(self) -> None:
        """Whether it is still ours; called before anything that another controller must not do as well.

        Raises:
            LeaseError: another controller took it over, or it is gone.
            StorageError: it cannot be read.
        """
        current = holder_of(self._directory)
        if current is None:
            raise LeaseError(f"the lease of {self._directory.root} is gone", "somebody removed it; start again")
        if current.token != self._holder.token:
            raise LeaseError(
                f"another controller took over {self._directory.root}: {current.place}", "this one ends; jobs go on"
            )

    def commit(self, tree: Tree) -> None:
        """Write the tree, unless the lease is not ours any more at the very moment of the rename.

        Raises:
            LeaseError: as `check`; the tree is as it was.
            ValueError, StorageError: as `SearchDirectory.write_tree`.
        """
        try:
            self._directory.write_tree(tree, self.check)
        except StorageError:
            self.check()  # a successor may have removed what was to be renamed
            raise

    def renew(self) -> None:
        """Check, and show that the holder lives.

        Raises:
            LeaseError: as `check`.
            StorageError: the file system refused.
        """
        self.check()
        path = _file(self._directory)
        with refusals("renewing", path):
            # The time of the file, not its content: were it another's by now, nothing would be lost.
            os.utime(path)

    def release(self) -> None:
        """Give it back; does nothing when another controller has it.

        Raises:
            StorageError: the file system refused.
        """
        with refusals("releasing", _file(self._directory)):
            current = holder_of(self._directory)
            if current is not None and current.token == self._holder.token:
                nobody = Holder(os.urandom(8).hex(), None, self._holder.acquired_at, time.time(), self._holder.job)
                _succeed(self._directory, current, nobody)


def patience_seconds(directory: SearchDirectory) -> float:
    """How long a holder must have been silent until others may take its lease."""
    return max(_PATIENCE_SECONDS, _PATIENCE_TICKS * directory.record.config.tick_seconds)


def silent_seconds(directory: SearchDirectory, holder: Holder) -> float:
    """For how long a holder has not renewed its lease, by the clock of the file system.

    Raises:
        StorageError: the file system refused; this writes a file.
    """
    path = _file(directory)
    with refusals("writing", path):
        probe = write_aside(path, b"")
        try:
            return max(0.0, probe.stat().st_mtime - holder.renewed_at)
        finally:
            discard(probe)


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
    job: ControllerJob | None = None


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
    return Holder(content.token, content.process, content.acquired_at, status.st_mtime, content.job)


def _is_free(directory: SearchDirectory, current: Holder, job: ControllerJob | None, after_silence: bool) -> bool:
    if current.is_gone or (job is not None and job.continues(current.job)):
        return True
    return after_silence and silent_seconds(directory, current) > patience_seconds(directory)


def _held(directory: SearchDirectory, holder: Holder, *, after_silence: bool) -> LeaseError:
    silent = silent_seconds(directory, holder)
    left = patience_seconds(directory) - silent
    by_itself = f" (as any command does in {left / 60:.0f} min if it stays silent)" if after_silence else ""
    return LeaseError(
        f"{directory.root} is driven by {holder.place}, last heard of {silent:.0f} s ago",
        f"`llmzero-hpc stop` ends it; `--take-over` takes the search from it if it is gone for good{by_itself}",
    )


def _remove_trees_being_written(directory: SearchDirectory) -> None:
    """What a former holder has not renamed yet, it never will."""
    mark = f"{TEMPORARY_PREFIX}{directory.tree_file.name}-"
    for path in directory.root.iterdir():
        if path.name.startswith(mark):
            remove(path)


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
