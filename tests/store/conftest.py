"""What the tests of the store share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from disks import SmallDisk
from store_samples import new_search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.remove()


@pytest.fixture
def directory(tmp_path: Path) -> SearchDirectory:
    return new_search(tmp_path / "search")
