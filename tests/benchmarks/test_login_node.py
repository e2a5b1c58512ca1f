"""What runs on a login node brings no heavy package along, and a tick asks the cluster once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import login_cost
import pytest
from measuring import Footprint
from samples import running, search_of, write_phase_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def search(tmp_path: Path) -> str:
    """A search of six phases, two of them running."""
    tree = running(4, 2)
    directory = search_of(tmp_path / "bench", tree)
    for node in tree.active():
        write_phase_files(directory, node)
    return str(directory.root)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_status_loads_nothing_heavy(search: str, options: tuple[str, ...]) -> None:
    found = Footprint.of("llmzero_hpc.cli.main:main", "status", search, *options)
    assert found.heavy == ()
    assert "pydantic" in found.modules  # what is loaded is seen at all


def test_a_controller_loads_nothing_heavy_and_asks_once_a_tick() -> None:
    cost = login_cost.measured(2, 2, 0.05, 4, judging=True)
    assert Footprint(cost.peak_memory, cost.modules).heavy == ()
    assert "psutil" in cost.modules
    assert cost.calls == 1


def test_a_heavy_package_would_be_noticed() -> None:
    assert Footprint.of("h5py:get_config").heavy == ("h5py", "numpy")
