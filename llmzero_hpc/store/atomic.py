"""Durable writes: a file is replaced whole or not at all, a line is appended whole or healed by the next one."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from llmzero_hpc.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
"""Names of files that are being written start with it; a kill may leave one behind, which nothing ever reads."""

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_CAUSES = {
    errno.ENOSPC: ("No space left on device", "free some space; the search goes on where it was"),
    errno.EDQUOT: ("Disk quota exceeded", "free some space or ask for more; the search goes on where it was"),
    errno.EFBIG: ("File size limit reached", "raise the limit (`ulimit -f`); the search goes on where it was"),
    errno.EROFS: ("Read-only file system", "use a folder that can be written to"),
    errno.EACCES: ("Permission denied", "check the owner and mode of the folder"),
    errno.EPERM: ("Operation not permitted", "check the owner and mode of the folder"),
    errno.ENOENT: ("Folder or file is gone", "somebody moved or deleted it; put it back"),
    errno.ENOTDIR: ("A file stands where a folder should be", "move it away"),
    errno.EIO: ("Input/output error", "the file system is in trouble; try again when it has recovered"),
    errno.ESTALE: ("Stale file handle", "the network file system lost the file; try again"),
}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_CANNOT_SYNC_FOLDER = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
_STALE_RETRIES = 3


def storage_error(error: OSError, doing: str, path: Path) -> StorageError:
    """The error for people of a refused operation; `error.errno` stays in `__cause__` when raised from it."""
    cause, next_step = _CAUSES.get(error.errno or 0, (error.strerror or str(error), ""))
    return StorageError(f"{cause} while {doing} {path}", next_step)


@contextmanager
def refusals(doing: str, path: Path) -> Iterator[None]:
    """Turns an OSError inside into a StorageError of one line."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, path) from error


def write_bytes(path: Path, data: bytes, mode: int = 0o644, guard: Callable[[], None] | None = None) -> None:
    """Replace a file by rename, after its content is on disk; a kill at any instant leaves the old or the new one.

    Args:
        path: the file; its folder must be there.
        data: the whole content.
        mode: permissions, narrowed by the umask.
        guard: called right before the rename; what it raises prevents it.

    Raises:
        StorageError: the file system refused; the old file is as it was, unless only the folder could not be synced.
    """
    with refusals("writing", path):
        temporary = write_aside(path, data, mode)
        try:
            if guard is not None:
                guard()
            os.replace(temporary, path)  # noqa: PTH105 - the tests kill at every call of os, pathlib hides them
        except BaseException:
            discard(temporary)
            raise
        sync_folder(path.parent)


def create_bytes(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Create a file whole, unless it is there already: of several processes, on any host, exactly one succeeds.

    Returns:
        Whether this call created it.

    Raises:
        StorageError: the file system refused.
    """
    with refusals("creating", path):
        temporary = write_aside(path, data, mode)
        try:
            created = link_new(temporary, path)
        finally:
            discard(temporary)
        if created:
            sync_folder(path.parent)
        return created


def link_new(complete: Path, path: Path) -> bool:
    """Give a complete file one more name, unless that name is taken; exclusive on NFS too. OSError passes through."""
    try:
        os.link(complete, path)
    except FileExistsError:
        # A network file system may repeat a request whose answer was lost and then report our own success as a clash.
        return complete.stat().st_nlink > 1 and path.stat().st_ino == complete.stat().st_ino
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _created_exclusively(path, complete.read_bytes(), complete.stat().st_mode & 0o777)
    return True


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Replace a file by a value as JSON; see `write_bytes`. NaN and infinity raise ValueError: they are no JSON."""
    write_bytes(path, json_bytes(value), mode)


def json_bytes(value: Any) -> bytes:
    """JSON for people and programs. No proper prefix of an object parses, as its last brace is its last character."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def append_line(path: Path, line: str, mode: int = 0o644) -> None:
    """Append one line with one write; a torn line that a kill or a full disk left is closed first.

    Args:
        path: the file; created if absent, its folder must be there.
        line: without its newline.
        mode: permissions of a new file, narrowed by the umask.

    Raises:
        StorageError: the file system refused; a part of the line may stand in the file, which readers skip.
    """
    if "\n" in line:
        raise ValueError("a line holds no newline")
    with refusals("writing", path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _write_all(descriptor, (b"\n" if torn else b"") + line.encode(errors="backslashreplace") + b"\n")
        finally:
            os.close(descriptor)


def read_bytes(path: Path) -> bytes | None:
    """The content of a file, or None where there is none.

    Raises:
        StorageError: it cannot be read.
    """
    with refusals("reading", path):
        for _ in range(_STALE_RETRIES):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None
            except OSError as error:
                # On NFS a reader that meets a replacement is told that its handle is stale: the new file is there.
                if error.errno != errno.ESTALE:
                    raise
        return path.read_bytes()


def make_folder(path: Path, mode: int = 0o755) -> None:
    """Make a folder and those above it; being there already is fine.

    Raises:
        StorageError: the file system refused.
    """
    with refusals("making", path):
        path.mkdir(mode=mode, parents=True, exist_ok=True)


def remove(path: Path) -> bool:
    """Remove a file; returns whether it was there.

    Raises:
        StorageError: the file system refused.
    """
    with refusals("removing", path):
        try:
            os.unlink(path)  # noqa: PTH108 - as os.replace above
        except FileNotFoundError:
            return False
        return True


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut; file systems that cannot are taken as they are."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC_FOLDER:
            raise
    finally:
        os.close(descriptor)


def write_aside(path: Path, data: bytes, mode: int = 0o644) -> Path:
    """A complete, synced temporary file beside `path`, for the caller to link or rename. OSError passes through."""
    temporary = path.parent / f"{TEMPORARY_PREFIX}{path.name}-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        _created_exclusively(temporary, data, mode)
    except BaseException:
        discard(temporary)
        raise
    return temporary


def _created_exclusively(path: Path, data: bytes, mode: int) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        return False
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def discard(temporary: Path) -> None:
    """Remove a temporary file if it is still there and can be removed."""
    with suppress(OSError):
        os.unlink(temporary)  # noqa: PTH108 - as os.replace above
