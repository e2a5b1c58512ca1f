"""Adapter checkpoints: where they lie, which are complete, and how one becomes complete.

A checkpoint is a folder `step_30` with a PEFT adapter. It is written under a hidden name and renamed, so a folder of
that name is whole; `complete_checkpoints` checks all the same, as files get lost outside of our hands.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
"""The files of a PEFT adapter; both are needed to load it."""

_NAME: Final = re.compile(r"step_([1-9][0-9]*)")
_UNFINISHED: Final = ".unfinished-"


def checkpoint_path(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint after `step`, there or not."""
    return checkpoints / f"step_{step}"


def complete_checkpoints(checkpoints: Path) -> tuple[int, ...]:
    """Steps of all complete checkpoints, ascending; empty where the folder is not there."""
    return tuple(step for step in saved_steps(checkpoints) if is_adapter(checkpoint_path(checkpoints, step)))


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return all(_has_content(folder / name) for name in ADAPTER_FILES)


def saved_steps(folder: Path) -> tuple[int, ...]:
    """Steps that have a folder `step_<n>` here, ascending, whatever it holds."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name))))


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the name `target` when the block ends well, and is removed when it does not.

    Its files reach the disk before the name does. A folder that already has the name is replaced.
    """
    unfinished = target.parent / f"{_UNFINISHED}{target.name}-{os.getpid()}"
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _flush(unfinished)
        if target.exists():
            replaced = unfinished.with_name(unfinished.name + "-replaced")
            target.rename(replaced)
            unfinished.rename(target)
            shutil.rmtree(replaced)
        else:
            unfinished.rename(target)
        _flush_one(target.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left behind. Only for the folder's one writer."""
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        _flush_one(path)
    _flush_one(folder)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
