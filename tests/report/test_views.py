"""Bringing everything derived up to date from a search on disk."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import h5py
import pytest
import report_samples as samples

from llmzero_hpc.errors import SearchNotFoundError
from llmzero_hpc.report.data import to_json, without_clock
from llmzero_hpc.report.reading import read
from llmzero_hpc.report.views import refresh, write_report
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.node import Node


def write_metrics(directory: SearchDirectory, node: Node) -> None:
    attempt = directory.phase(node.id).attempt(1)
    attempt.create()
    writer = MetricsWriter(attempt.metrics, attempt=1, restart=0)
    for row in samples.phase_series(node).rows:
        writer.write(row.step, {name: value for name, value in row.values.items() if name in {"val_score", "kl"}})


@pytest.fixture
def directory(tmp_path: Path) -> SearchDirectory:
    """A search of three phases."""
    record = SearchRecord.new(samples.config(), 4096, samples.CREATED_AT)
    found = SearchDirectory.create(tmp_path / "search", record)
    tree = samples.finished_tree()
    tree = replace(tree, nodes=tree.nodes[:3], evaluation=None)
    for node in tree:
        write_metrics(found, node)
    found.write_tree(tree)
    return found


def stamps(directory: SearchDirectory) -> dict[str, int]:
    names = {
        "metrics.h5",
        "curves.png",
        "overlay.png",
        "strategy.png",
        "best_so_far.png",
        "trajectories.png",
        "tree.svg",
    }
    return {
        str(path.relative_to(directory.root)): path.stat().st_ino
        for path in directory.root.rglob("*")
        if path.name in names
    }


def test_everything_derived_is_there_after_a_refresh(directory: SearchDirectory) -> None:
    done = refresh(directory.root)

    assert done.phases == (0, 1, 2)
    assert set(stamps(directory)) == {
        "metrics.h5", "plots/strategy.png", "plots/best_so_far.png", "plots/trajectories.png", "plots/tree.svg",
        "phases/0000/metrics.h5", "phases/0000/plots/curves.png", "phases/0000/plots/overlay.png",
        "phases/0001/metrics.h5", "phases/0001/plots/curves.png",
        "phases/0002/metrics.h5", "phases/0002/plots/curves.png", "phases/0002/plots/overlay.png",
    }  # fmt: skip
    assert done.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    with h5py.File(directory.metrics_h5) as file:
        assert list(file["phases/0001/step"]) == list(range(51, 91))
        assert file["phases/0001"].attrs["score"] == 0.711


def test_what_has_not_changed_is_left_alone(directory: SearchDirectory) -> None:
    refresh(directory.root)
    before = stamps(directory)

    assert refresh(directory.root).phases == ()
    assert stamps(directory) == before


def test_only_the_phase_with_new_rows_is_written_again(directory: SearchDirectory) -> None:
    refresh(directory.root)
    before = stamps(directory)
    MetricsWriter(directory.phase(2).attempt(1).metrics, attempt=1, restart=0).write(58, {"kl": 0.1})

    assert refresh(directory.root).phases == (2,)
    after = stamps(directory)
    assert {name for name in before if before[name] != after[name]} == {
        "metrics.h5", "phases/0002/metrics.h5", "phases/0002/plots/curves.png", "phases/0002/plots/overlay.png",
    }  # fmt: skip


@pytest.mark.parametrize("lost", ["phases/0001/metrics.h5", "metrics.h5"])
def test_losing_a_view_loses_nothing(directory: SearchDirectory, lost: str) -> None:
    refresh(directory.root)
    before = set(stamps(directory))
    (directory.root / lost).unlink()
    refresh(directory.root)

    assert set(stamps(directory)) == before
    assert (directory.root / lost).exists()


def test_a_torn_memory_of_what_was_drawn_only_costs_time(directory: SearchDirectory) -> None:
    refresh(directory.root)
    (directory.root / "views.json").write_text('{"0": "ab')

    assert refresh(directory.root).phases == (0, 1, 2)


def test_reading_from_disk_says_what_the_tree_says(directory: SearchDirectory) -> None:
    tree = directory.read_tree()
    expected = without_clock(replace(samples.data(tree, pulse_age=None), series={}))

    assert without_clock(read(directory, metrics=())) == expected
    assert list(read(directory, metrics=[1]).series) == [1]
    assert to_json(read(directory))["provenance"]["train_rows"] == 4096


def test_the_report_goes_where_it_is_asked_to(directory: SearchDirectory, tmp_path: Path) -> None:
    path = write_report(directory, tmp_path / "elsewhere.html")

    assert path == tmp_path / "elsewhere.html"
    assert "0.711" in path.read_text(encoding="utf-8")


def test_a_folder_without_a_search_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SearchNotFoundError):
        refresh(tmp_path)
    command = [sys.executable, "-m", "llmzero_hpc.report.views", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert run.returncode == SearchNotFoundError.exit_code
    assert "holds no search" in run.stderr
    assert "Traceback" not in run.stderr
