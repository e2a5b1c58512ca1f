"""Whether a folder's file system keeps what the program relies on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.doctor_finding import Finding, Verdict
from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.atomic import create_bytes, make_folder, refusals, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

_SKEW_SECONDS = 5.0
_FEW_FILES = 10_000
_GIGABYTE = 2**30
_OF_ONE_MACHINE = {"tmpfs", "ramfs", "overlay", "devtmpfs"}
_QUOTA_SECONDS = 20.0
_LOCKS = """
import fcntl, sys
with open(sys.argv[1]) as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("refused")
"""


def storage_findings(folder: Path, free_gb: float, *, shared: bool) -> Iterator[Finding]:
    """Checks of the folder that holds searches; what they write is gone afterwards.

    `shared` folders must be seen by other machines.
    """
    try:
        make_folder(folder)
        with refusals("writing", folder), tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as own:
            yield _durable(folder, Path(own))
            yield _locks(Path(own))
            yield _clock(Path(own))
        yield _space(folder, free_gb)
        yield from _quota(folder)
        if shared:
            yield from _file_system(folder)
    except StorageError as error:
        yield Finding("state folder", Verdict.FAILED, error.message, error.next_step or "name another with --state")


def _durable(folder: Path, own: Path) -> Finding:
    """Replacing by rename, creating exclusively, and syncing, as the store does them."""
    file = own / "file"
    write_bytes(file, b"old")
    write_bytes(file, b"new")
    first, second = create_bytes(own / "once", b"1"), create_bytes(own / "once", b"2")
    if file.read_bytes() != b"new" or not first or second or (own / "once").read_bytes() != b"1":
        return Finding(
            "state folder",
            Verdict.FAILED,
            f"{folder}: files are not replaced or created as a whole",
            "use another file system",
        )
    return Finding("state folder", Verdict.OK, f"{folder.absolute()}: files are replaced and created as a whole")


def _locks(own: Path) -> Finding:
    """File locks, asked for by another process, as network file systems grant one process its own lock twice."""
    import fcntl

    try:
        with (own / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other = subprocess.run(
                [sys.executable, "-I", "-c", _LOCKS, str(own / "lock")], capture_output=True, text=True, check=False
            )
        works = other.stdout.strip() == "refused"
    except OSError:
        works = False
    if works:
        return Finding("file locks", Verdict.OK, "they exclude other processes")
    return Finding(
        "file locks",
        Verdict.WARNING,
        "they do not work here; the store needs none, but caches of Hugging Face do",
        "set `scratch` in the profile to a folder on another file system",
    )


def _clock(own: Path) -> Finding:
    before = time.time()
    (own / "clock").touch()
    after, seen = time.time(), (own / "clock").stat().st_mtime
    # Touching it may have taken long, as on a busy file system.
    skew = seen - min(max(seen, before), after)
    if abs(skew) > _SKEW_SECONDS:
        return Finding(
            "clock",
            Verdict.WARNING,
            f"the file system's clock is {skew:+.0f} s off this machine's",
            "tell the admins; heartbeats look older or newer than they are",
        )
    return Finding("clock", Verdict.OK, "this machine and the file system agree")


def _space(folder: Path, free_gb: float) -> Finding:
    free = shutil.disk_usage(folder).free / _GIGABYTE
    inodes = os.statvfs(folder)
    message = f"{free:.1f} GB free"
    if free < free_gb:
        return Finding(
            "space",
            Verdict.FAILED,
            f"{message}, below housekeeping.free_gb ({free_gb:g})",
            "free some, or name another folder with --state: no phase is submitted before",
        )
    if inodes.f_files and inodes.f_favail < _FEW_FILES:
        return Finding(
            "space", Verdict.WARNING, f"{message}, but room for {inodes.f_favail} files only", "remove some files"
        )
    return Finding("space", Verdict.OK, message)


def _quota(folder: Path) -> Iterator[Finding]:
    """What the site's quota commands mark as exceeded, where there are any."""
    user = str(os.getuid())
    kind = _kind(folder)
    command = ["lfs", "quota", "-u", user, str(folder)] if kind == "lustre" else ["quota", "-w"]
    if shutil.which(command[0]) is None:
        return
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUOTA_SECONDS, check=False)
        exceeded = [" ".join(line.split()) for line in done.stdout.splitlines() if "*" in line]
        if exceeded:
            yield Finding("quota", Verdict.WARNING, f"exceeded: {exceeded[0]}", "free some space, or ask for more")
        elif not done.returncode:
            yield Finding("quota", Verdict.OK, "not exceeded")


def _file_system(folder: Path) -> Iterator[Finding]:
    kind = _kind(folder)
    if kind in _OF_ONE_MACHINE:
        yield Finding(
            "file system",
            Verdict.WARNING,
            f"{folder} is on {kind}, which other machines do not see",
            "name a folder that all machines share with --state",
        )
    elif kind:
        yield Finding("file system", Verdict.OK, kind)


def _kind(folder: Path) -> str:
    """The type of its file system; empty where the system does not tell."""
    found = ("", "")
    own = str(folder.resolve())
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            place, kind = line.split()[1:3]
            place = place.replace("\\040", " ")
            if (own + "/").startswith(place.rstrip("/") + "/") and len(place) >= len(found[0]):
                found = (place, kind)
    return found[1]
