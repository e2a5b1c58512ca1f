"""The log of a controller that has no terminal stays small, whoever opened it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmzero_hpc.store.atomic import refusals, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_LOG = 1_000_000
"""Bytes; as much is kept in the older file beside it."""


def limit_log(log: Path) -> None:
    """Empty a log that has grown too large, keeping what it holds in `<name>.1`.

    It is emptied in place: it may be open in this process, in a shell and in Slurm, all of which append.

    Raises:
        StorageError: the file system refused.
    """
    with refusals("limiting", log):
        if not log.exists() or log.stat().st_size <= LARGEST_LOG:
            return
        write_bytes(log.with_name(log.name + ".1"), log.read_bytes()[-LARGEST_LOG:])
        os.truncate(log, 0)
