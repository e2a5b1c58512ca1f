"""HDF5 files are views: whole or absent, portable with their folder, and never locked."""

from __future__ import annotations

import math
import shutil
import sys
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from kills import killed_at_every_step
from store_samples import new_search

from llmzero_hpc.errors import MissingDependencyError, StorageError
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.store.metrics_h5 import write_phase_h5, write_search_h5

if TYPE_CHECKING:
    from pathlib import Path

    from disks import SmallDisk

    from llmzero_hpc.store.search_directory import SearchDirectory

SERIES = Series(
    (MetricRow(31, {"kl": 0.5}), MetricRow(32, {"val_score": 0.25, "val_score/a.b/c": 1.0, "odd": math.nan}))
)


def test_a_phase_is_arrays_by_step_with_nan_where_nothing_was_reported(tmp_path: Path) -> None:
    path = tmp_path / "metrics.h5"
    write_phase_h5(SERIES, path, {"node": 3, "status": "completed", "score": None, "rate": 0.5, "pruned": False})
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"node": 3, "status": "completed", "rate": 0.5, "pruned": False}
        assert file["step"][:].tolist() == [31, 32]
        np.testing.assert_array_equal(file["kl"][:], [0.5, np.nan])
        np.testing.assert_array_equal(file["val_score"][:], [np.nan, 0.25])
        subtasks = file["subtasks/val_score"]
        assert [dataset.attrs["name"] for dataset in subtasks.values()] == ["val_score/a.b/c"]
        assert all(len(dataset) == 2 for dataset in subtasks.values())


def test_an_empty_phase_is_a_file_without_rows(tmp_path: Path) -> None:
    write_phase_h5(Series(), tmp_path / "metrics.h5", {})
    with h5py.File(tmp_path / "metrics.h5") as file:
        assert file["step"].shape == (0,)


def test_the_search_links_to_its_phases_and_may_be_moved(directory: SearchDirectory, tmp_path: Path) -> None:
    for node in (0, 7):
        directory.phase(node).create()
        write_phase_h5(SERIES, directory.phase(node).metrics_h5, {"node": node})
    directory.phase(3).create()
    write_search_h5(directory)
    moved = tmp_path / "moved"
    shutil.move(directory.root, moved)
    with h5py.File(moved / "metrics.h5") as file:
        assert file.attrs["search"] == "sample"
        assert list(file["phases"]) == ["0000", "0007"]
        assert file["phases/0007"].attrs["node"] == 7
        assert file["phases/0007/step"][:].tolist() == [31, 32]


def test_a_search_without_phases_has_a_file_too(directory: SearchDirectory) -> None:
    write_search_h5(directory)
    with h5py.File(directory.metrics_h5) as file:
        assert list(file["phases"]) == []


def test_a_kill_at_any_step_leaves_a_file_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "metrics.h5"
    found = set()
    for _ in killed_at_every_step(
        lambda: write_phase_h5(Series(), path, {}), lambda: write_phase_h5(SERIES, path, {"node": 3})
    ):
        with h5py.File(path) as file:
            found.add(len(file["step"]))
    assert found == {0, 2}


def test_a_file_that_somebody_reads_with_locks_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.h5"
    write_phase_h5(Series(), path, {})
    with h5py.File(path, locking=True) as reader:
        write_phase_h5(SERIES, path, {})
        assert reader["step"].shape == (0,)
    with h5py.File(path) as reader:
        assert reader["step"].shape == (2,)


def test_a_full_disk_leaves_the_old_file(small_disk: SmallDisk) -> None:
    directory = new_search(small_disk.folder / "search")
    directory.phase(0).create()
    path = directory.phase(0).metrics_h5
    write_phase_h5(SERIES, path, {})
    with small_disk.full():
        with pytest.raises(StorageError, match=small_disk.full_words):
            write_phase_h5(Series(), path, {})
        with pytest.raises(StorageError, match=small_disk.full_words):
            write_search_h5(directory)
    with h5py.File(path) as file:
        assert len(file["step"]) == 2


def test_without_h5py_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match="h5py is not installed"):
        write_phase_h5(SERIES, tmp_path / "metrics.h5", {})
