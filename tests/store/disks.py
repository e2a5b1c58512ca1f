"""A small disk that can be filled and made read-only: a real file system for root, the nearest limits for others."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 256 * 1024


class SmallDisk:
    """`folder` lies on it. `full_words` and `read_only_words` are what its refusals say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "llmzero-test", str(folder)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mounting, capture_output=True, check=False).returncode == 0
        self.full_words = "No space left on device" if self.mounted else "File size limit reached"
        self.read_only_words = "Read-only file system" if self.mounted else "Permission denied"

    @contextmanager
    def full(self) -> Iterator[None]:
        """No more bytes fit."""
        if not self.mounted:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return
        filler = self.folder / "filler"
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(descriptor, bytes(4096))
        except OSError:
            os.close(descriptor)
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing may be written."""
        self._set_writable(False)
        try:
            yield
        finally:
            self._set_writable(True)

    def remove(self) -> None:
        """Unmount."""
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)

    def _set_writable(self, writable: bool) -> None:
        if self.mounted:
            option = f"remount,{'rw' if writable else 'ro'}"
            subprocess.run(["mount", "-o", option, str(self.folder)], check=True)
            return
        for folder in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
            folder.chmod(0o755 if writable else 0o555)
