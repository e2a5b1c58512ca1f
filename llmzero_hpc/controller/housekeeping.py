"""What a search has on disk, what of it can go, and how it goes: by rename first, so that nothing half is left."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.errors import StorageError
from llmzero_hpc.report import words
from llmzero_hpc.search.housekeeping import needed_checkpoints
from llmzero_hpc.store.atomic import TEMPORARY_PREFIX, refusals, sync_folder
from llmzero_hpc.trainers.checkpoints import checkpoint_path, saved_steps

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from llmzero_hpc.search.node import Attempt
    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.phase_directory import PhaseDirectory
    from llmzero_hpc.store.search_directory import SearchDirectory

_STALE_SECONDS = 86_400.0
"""Longer than any write takes, whatever the clocks of two machines say."""


class Kind(StrEnum):
    """What takes space."""

    CHECKPOINTS = "checkpoints"
    TRAINING_STATE = "training state"
    """What a phase needs to continue itself: adapter, optimizer."""
    SUBMISSIONS = "submissions"
    """Scripts, pickles and launcher's logs of jobs."""
    LOGS_AND_METRICS = "logs and metrics"
    AGENTS = "agents"
    VIEWS = "views"
    """Plots, HDF5 files, the report: they can be made anew."""
    TEMPORARY = "temporary files"
    """Left by processes that were killed while they wrote."""
    RECORDS = "records"
    """The search itself."""


@dataclass(frozen=True, slots=True)
class Removable:
    """A file or folder that nothing needs any more; `size` is what it takes on disk, bytes."""

    kind: Kind
    path: Path
    size: int


def removable(
    directory: SearchDirectory, tree: Tree, *, best: int = 1, is_over: bool = False, now: float | None = None
) -> tuple[Removable, ...]:
    """What can go: checkpoints that are not needed, training state of final phases, job pickles, stale temporary files.

    Args:
        directory: the search.
        tree: its tree; an older one is as good, as what is not needed never will be.
        best: of how many of the best phases the best checkpoint stays.
        is_over: the search is over, so that nothing is resumed any more.
        now: seconds since the epoch, by which temporary files outside of final phases are stale; None leaves them out.

    Raises:
        StorageError: a folder cannot be read.
    """
    needed = needed_checkpoints(tree, directory.record.config.growth, best=best, is_over=is_over)
    found: list[tuple[Kind, Path]] = []
    for node in tree:
        folder = directory.phase(node.id)
        if node.status.is_final:
            steps = {reference.step for reference in needed if reference.node == node.id}
            found += _of_final_phase(folder, steps)
        found += _pickles(folder, node.attempts)
    evaluation = tree.evaluation
    if evaluation is not None:
        folder = directory.evaluation(evaluation.split, evaluation.checkpoint.node, evaluation.checkpoint.step)
        found += _pickles(folder, evaluation.attempts)
    if now is not None:
        found += _stale(directory.root, now, {path for _, path in found})
    return tuple(Removable(kind, path, _size(path)) for kind, path in found)


def remove(items: Iterable[Removable]) -> int:
    """Remove them; what they took on disk, bytes. After a kill the rest is found again; nothing half keeps its name.

    Raises:
        StorageError: the file system refused.
    """
    freed = 0
    for item in items:
        with refusals("removing", item.path):
            if item.path.is_dir() and not item.path.is_symlink():
                _remove_folder(item.path)
            else:
                item.path.unlink(missing_ok=True)
        freed += item.size
    return freed


def collect(directory: SearchDirectory, tree: Tree) -> str:
    """Remove what a search that goes on does not need; what was done, for people, empty where there was nothing to do.

    A file system that refuses stops no search: it is told in the same way.
    """
    try:
        items = removable(directory, tree)
        freed = remove(items)
    except StorageError as error:
        return f"housekeeping ended early: {error.message}"
    return f"removed what nothing needs: {words.size(freed)}" if items else ""


def usage(root: Path) -> dict[Kind, int]:
    """What a search takes on disk, bytes by kind."""
    taken = dict.fromkeys(Kind, 0)
    for path in _files(root):
        taken[_kind(path.relative_to(root).parts)] += _size(path)
    return taken


def space_problem(root: Path, floor_gb: float) -> str | None:
    """Why nothing may be submitted now: the file system of `root` has less free space than the floor; or None.

    A quota that the file system does not tell of is met only when a write fails, which loses nothing.
    """
    with refusals("asking for the free space of", root):
        free = shutil.disk_usage(root).free
    if free >= floor_gb * 1e9:
        return None
    return f"only {words.size(free)} are free in {root}; housekeeping.free_gb keeps {floor_gb:g} GB"


def _of_final_phase(folder: PhaseDirectory, needed: Collection[int]) -> Iterator[tuple[Kind, Path]]:
    for step in saved_steps(folder.checkpoints):
        if step not in needed:
            yield Kind.CHECKPOINTS, checkpoint_path(folder.checkpoints, step)
    if folder.training_state.is_dir():
        yield Kind.TRAINING_STATE, folder.training_state
    for path in sorted(folder.checkpoints.glob(f"{TEMPORARY_PREFIX}*")):
        yield Kind.TEMPORARY, path
    for path in sorted(folder.path.glob(f"{TEMPORARY_PREFIX}*")):
        yield Kind.TEMPORARY, path


def _pickles(folder: PhaseDirectory, attempts: Iterable[Attempt]) -> Iterator[tuple[Kind, Path]]:
    for attempt in attempts:
        if attempt.is_over:
            for path in sorted(folder.attempt(attempt.number).submission.rglob("*.pkl")):
                yield Kind.SUBMISSIONS, path


def _stale(root: Path, now: float, found: set[Path]) -> Iterator[tuple[Kind, Path]]:
    for path in sorted(root.rglob(f"{TEMPORARY_PREFIX}*")):
        if found.isdisjoint((path, *path.parents)) and not _is_inside_temporary(root, path):
            with suppress(OSError):
                if now - path.lstat().st_mtime > _STALE_SECONDS:
                    yield Kind.TEMPORARY, path


def _is_inside_temporary(root: Path, path: Path) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in path.relative_to(root).parts[:-1])


def _remove_folder(folder: Path) -> None:
    gone = folder
    if not folder.name.startswith(TEMPORARY_PREFIX):
        gone = folder.with_name(f"{TEMPORARY_PREFIX}removed-{folder.name}")
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(FileNotFoundError):
            os.replace(folder, gone)  # noqa: PTH105 - the tests kill at every call of os, pathlib hides them
            sync_folder(folder.parent)
    shutil.rmtree(gone, ignore_errors=True)


def _kind(parts: tuple[str, ...]) -> Kind:
    names = frozenset(parts)
    if any(name.startswith(TEMPORARY_PREFIX) for name in parts):
        return Kind.TEMPORARY
    if parts[0] not in {"phases", "evaluations"}:
        return Kind.VIEWS if parts[0] in {"plots", "metrics.h5", "report.html"} else Kind.RECORDS
    for name, kind in (
        ("checkpoints", Kind.CHECKPOINTS),
        ("training_state", Kind.TRAINING_STATE),
        ("submission", Kind.SUBMISSIONS),
        ("agents", Kind.AGENTS),
        ("plots", Kind.VIEWS),
        ("metrics.h5", Kind.VIEWS),
    ):
        if name in names:
            return kind
    return Kind.LOGS_AND_METRICS


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield Path(place, name)


def _size(path: Path) -> int:
    """Of a file, or of all in a folder; what is gone meanwhile takes nothing."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size(inside) for inside in _files(path))
    with suppress(OSError):
        # blocks, as a sparse or compressed file takes less than its length
        return path.lstat().st_blocks * 512
    return 0
