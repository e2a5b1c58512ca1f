"""Metrics as HDF5 for analysis: a view of the JSONL files that may be lost and written again at any time.

A file is built in memory and put in place whole, so a kill never leaves one that cannot be opened. HDF5's file
locking is off: it fails on many Lustre and NFS mounts, and a file that is never changed in place needs none.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from llmzero_hpc.errors import MissingDependencyError
from llmzero_hpc.store.atomic import refusals, write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmzero_hpc.search.metrics import Series
    from llmzero_hpc.store.search_directory import SearchDirectory

Attribute = str | int | float | bool | None


def write_phase_h5(series: Series, path: Path, attributes: Mapping[str, Attribute]) -> None:
    """Write one phase: `step`, and one array for each metric with NaN where a step has no value.

    A subtask's `val_score/<name>` is `subtasks/val_score/<name>`, as `val_score` itself is an array. Attributes that
    are None are left out.

    Raises:
        MissingDependencyError: h5py is not installed.
        StorageError: the file system refused.
    """
    h5py = _h5py()
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        file.attrs.update({name: value for name, value in attributes.items() if value is not None})
        file.create_dataset("step", data=[row.step for row in series.rows], dtype="int64")
        for name in series.names():
            values = [row.values.get(name, math.nan) for row in series.rows]
            file.create_dataset(_dataset(name), data=values, dtype="float64").attrs["name"] = name
        data = _image(file)
    write_bytes(path, data)


def write_search_h5(directory: SearchDirectory) -> None:
    """Write `metrics.h5`: `phases/0007` links to the file of that phase by relative path, so the folder may move.

    Raises:
        MissingDependencyError: h5py is not installed.
        StorageError: the file system refused.
    """
    h5py = _h5py()
    path = directory.metrics_h5
    with refusals("reading", directory.root):
        found = sorted(file.relative_to(directory.root) for file in directory.root.glob("phases/*/metrics.h5"))
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        file.attrs["search"] = directory.record.config.name
        phases = file.create_group("phases")
        for target in found:
            phases[target.parent.name] = h5py.ExternalLink(str(target), "/")
        data = _image(file)
    write_bytes(path, data)


def _h5py() -> Any:
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("h5py is not installed", "pip install 'llmzero-hpc[local]'") from None
    return h5py


def _image(file: Any) -> bytes:
    file.flush()
    image: bytes = file.id.get_file_image()
    return image


def _dataset(name: str) -> str:
    metric, slash, subtask = name.partition("/")
    return f"subtasks/{metric}/{subtask.replace('/', '%2F').replace('.', '%2E')}" if slash else metric
