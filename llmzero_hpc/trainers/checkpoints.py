"""Adapter checkpoints: where they lie, which are complete, and how one becomes complete.

A checkpoint is a folder `step_30` with a PEFT adapter. It is written under another name and renamed, so a folder of
that name is whole; `complete_checkpoints` checks all the same, as files get lost outside of our hands.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from llmzero_hpc.store.atomic import TEMPORARY_PREFIX, make_folder, refusals, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
"""The files of a PEFT adapter; both are needed to load it."""

_NAME: Final = re.compile(r"step_([1-9][0-9]*)")


def checkpoint_path(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint after `step`, there or not."""
    return checkpoints / f"step_{step}"


def complete_checkpoints(checkpoints: Path) -> tuple[int, ...]:
    """Steps of all complete checkpoints, ascending; empty where the folder is not there.

    Raises:
        StorageError: the folder cannot be read.
    """
    return tuple(step for step in saved_steps(checkpoints) if is_adapter(checkpoint_path(checkpoints, step)))


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return all(_has_content(folder / name) for name in ADAPTER_FILES)


def saved_steps(folder: Path) -> tuple[int, ...]:
    """Steps that have a folder `step_<n>` here, ascending, whatever it holds.

    Raises:
        StorageError: the folder cannot be read.
    """
    with refusals("reading", folder):
        try:
            names = [path.name for path in folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return ()
    return tuple(sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name))))


def unfinished_path(target: Path) -> Path:
    """Where `whole_folder` fills what becomes `target`."""
    return target.with_name(f"{TEMPORARY_PREFIX}{target.name}")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the name `target` when the block ends well, and is removed when it does not.

    Its files reach the disk before the name does. A folder that already has the name is replaced. One writer at a
    time; what a killed one left is cleared away.

    Raises:
        StorageError: the file system refused.
    """
    unfinished = unfinished_path(target)
    replaced = target.with_name(f"{TEMPORARY_PREFIX}replaced-{target.name}")
    for leftover in (unfinished, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    make_folder(unfinished)
    try:
        with refusals("writing", target):
            yield unfinished
            _flush(unfinished)
            if target.exists():
                target.rename(replaced)
            unfinished.rename(target)
            sync_folder(target.parent)
    finally:
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _flush(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
