"""Pictures: written for any data, the same bytes each time, nothing cut off."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
import report_samples as samples

from llmzero_hpc.report import plots
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = samples.finished()
PHASES = [(phase.first_step, f"phase {phase.node}") for phase in DATA.strategy]
DRAWINGS: dict[str, Callable[[Path], None]] = {
    "curves": lambda path: plots.curves(DATA.strategy_series(), path, title="Best", boundaries=PHASES, simulated=True),
    "overlay": lambda path: plots.overlay(DATA.series[3], DATA.strategy_series(), path, title="Phase 3"),
    "best_so_far": lambda path: plots.best_so_far(DATA, path),
    "trajectories": lambda path: plots.trajectories(DATA, path),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_data_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        one, other = tmp_path / f"one.{kind}", tmp_path / f"other.{kind}"
        DRAWINGS[name](one)
        DRAWINGS[name](other)
        assert one.read_bytes() == other.read_bytes()
        assert one.read_bytes().startswith(start)


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_touches_the_edge_of_the_picture(name: str, tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = tmp_path / "picture.png"
    DRAWINGS[name](path)
    picture = imread(path)[..., :3]

    for edge in (picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]):
        assert edge.min() == 1.0, "something is drawn on the very edge, so something may be cut off"


def test_each_metric_has_its_panel(tmp_path: Path) -> None:
    path = tmp_path / "curves.svg"
    DRAWINGS["curves"](path)
    panels = [item for item in ET.parse(path).iter() if (item.get("id") or "").startswith("axes_")]  # noqa: S314 - ours

    shown = [name for name in DATA.strategy_series().names() if name not in plots._LEFT_OUT]
    assert len(panels) == len(shown) == 10


def test_subtasks_of_the_validation_have_panels_whatever_they_are_called(tmp_path: Path) -> None:
    series = Series((MetricRow(1, {"val_score": 0.5, "val_score/$x_{": 0.4}), MetricRow(2, {"val_score/$x_{": 0.6})))
    plots.curves(series, tmp_path / "curves.png", title="$\\frac{ $")

    assert (tmp_path / "curves.png").exists()


def test_nothing_is_written_where_there_is_nothing_to_draw(tmp_path: Path) -> None:
    empty = samples.data(Tree(), pulse_age=None)
    plots.curves(Series(), tmp_path / "curves.png", title="Phase 0")
    plots.overlay(Series(), DATA.strategy_series(), tmp_path / "overlay.png", title="Phase 0")
    plots.best_so_far(empty, tmp_path / "best.png")
    plots.trajectories(empty, tmp_path / "trajectories.png")

    assert list(tmp_path.iterdir()) == []
