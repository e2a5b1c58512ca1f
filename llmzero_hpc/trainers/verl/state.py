"""The states from which VeRL continues: which of them are complete, and the one that a new run takes up.

VeRL writes a state in place, file by file, names it in a tracker when it is whole, and empties that tracker before it
fills it. So a kill may leave half a state, an empty tracker, or, when the machine died, a tracker of files that never
reached the disk. VeRL itself believes what it finds: what is broken goes before it starts.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from typing import TYPE_CHECKING, Final

from llmzero_hpc.store.atomic import read_bytes, refusals, remove, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.trainers.verl.layout import Layout

_NAME: Final = re.compile(r"global_step_([1-9][0-9]*)")
_PARTS: Final = ("model", "optim", "extra_state")
"""What each process writes."""


def named_state(place: Layout) -> int:
    """The step of the newest state that VeRL has called complete; 0 where there is none.

    Raises:
        StorageError: the tracker cannot be read.
    """
    content = (read_bytes(place.newest_state) or b"").strip()
    return int(content) if content.isdigit() else 0


def states(place: Layout) -> tuple[int, ...]:
    """Steps that have a folder, ascending, whatever is in it.

    Raises:
        StorageError: the folder cannot be read.
    """
    with refusals("reading", place.states):
        try:
            found = [_NAME.fullmatch(entry.name) for entry in place.states.iterdir()]
        except FileNotFoundError:
            return ()
    return tuple(sorted(int(match[1]) for match in found if match))


def world_size(state: Path) -> int:
    """Processes that wrote a state.

    Raises:
        ValueError: it does not say.
    """
    try:
        size = json.loads((state / "actor" / "fsdp_config.json").read_bytes())["world_size"]
    except (OSError, ValueError, KeyError, TypeError):
        size = None
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{state} does not say how many processes wrote it")
    return size


def shard(state: Path, part: str, rank: int, size: int) -> Path:
    """A file of one process: `part` is `model`, `optim` or `extra_state`."""
    return state / "actor" / f"{part}_world_size_{size}_rank_{rank}.pt"


def is_whole(state: Path) -> bool:
    """Whether all of a state is there, once nobody writes to it any more.

    Reads all of it: a machine that died leaves holes in files.
    """
    try:
        size = world_size(state)
        json.loads((state / "actor" / "lora_train_meta.json").read_bytes())
    except (OSError, ValueError):
        return False
    files = [shard(state, part, rank, size) for part in _PARTS for rank in range(size)]
    return all(_is_sound(path) for path in (*files, state / "data.pt"))


def take_up(place: Layout) -> int:
    """The step that a new run continues from, 0 for the beginning; no other state is left for VeRL to find.

    Raises:
        StorageError: the file system refused.
    """
    # The tracker says no more than its files do: it is written after all of them.
    whole = next((step for step in reversed(states(place)) if is_whole(place.state(step))), 0)
    if whole:
        write_bytes(place.newest_state, str(whole).encode())
    else:
        remove(place.newest_state)
    drop_all_but(place, whole)
    return whole


def drop_all_but(place: Layout, kept: int) -> None:
    """Remove all states but one.

    Raises:
        StorageError: the folder cannot be read.
    """
    for step in states(place):
        if step != kept:
            shutil.rmtree(place.state(step), ignore_errors=True)


def drop_older(place: Layout, step: int) -> None:
    """Remove the states before one that is complete; a newer one may be on its way.

    Raises:
        StorageError: the folder cannot be read.
    """
    for other in states(place):
        if other < step:
            shutil.rmtree(place.state(other), ignore_errors=True)


def _is_sound(path: Path) -> bool:
    """Whether an archive of torch's has all of its content; its checksums say."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
