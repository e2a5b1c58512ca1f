"""Everything that is derived for people and analysis, brought up to date: the report, HDF5 files, pictures.

`python -m llmzero_hpc.report.views <folder of a search>` runs as a process of its own beside the controller, so that
matplotlib and h5py never grow the controller. All of it may be lost at any time, and each file is replaced whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.report import html, plots
from llmzero_hpc.report.reading import read
from llmzero_hpc.report.tree_svg import render_tree
from llmzero_hpc.search import strategy as strategies
from llmzero_hpc.search.metrics import Series
from llmzero_hpc.store.atomic import make_folder, read_bytes, write_bytes, write_json
from llmzero_hpc.store.metrics_h5 import write_phase_h5, write_search_h5
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from llmzero_hpc.report.data import NodeReport, ReportData
    from llmzero_hpc.search.tree import Tree

_MEMORY = "views.json"
_STRATEGY = "strategy"
_NICENESS = 10  # pictures wait for training and for the other users of a login node


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What `refresh` did: where the report is, and the phases whose files were written anew."""

    report: Path
    phases: tuple[int, ...]


def report_file(directory: SearchDirectory) -> Path:
    """`report.html` of a search."""
    return directory.root / "report.html"


def write_report(directory: SearchDirectory, path: Path | None = None) -> Path:
    """Write the report alone, at `path` or in the search's folder; returns where.

    Raises:
        CorruptStateError, FormatVersionError, StorageError: the state cannot be read, or the report not be written.
    """
    path = path or report_file(directory)
    write_bytes(path, html.render(read(directory, metrics="all", costs=True)).encode())
    return path


def refresh(directory_path: Path) -> Refreshed:
    """Bring the report, the HDF5 files and the pictures up to date; what has not changed is left alone.

    A phase's `plots/overlay.png` shows it against the best strategy at the time when the phase last changed.

    Raises:
        SearchNotFoundError, CorruptStateError, FormatVersionError, StorageError: as for reading a search.
        MissingDependencyError: h5py or matplotlib is not installed; the report is written all the same.
    """
    directory = SearchDirectory.open(directory_path)
    data = read(directory, metrics="all", costs=True)
    report = report_file(directory)
    write_bytes(report, html.render(data).encode())
    known = _known(directory)
    seen = {str(node.id): _signature(directory, [node.id], node) for node in data.nodes}
    path = [phase.node for phase in data.strategy]
    seen[_STRATEGY] = _signature(directory, path, (data.strategy, data.trajectories, data.progress))
    changed = [
        node
        for node in data.nodes
        if data.series[node.id].rows
        and (known.get(str(node.id)) != seen[str(node.id)] or not directory.phase(node.id).metrics_h5.exists())
    ]
    for node in changed:
        write_phase_h5(data.series[node.id], directory.phase(node.id).metrics_h5, _attributes(data, node))
    if changed or not directory.metrics_h5.exists():
        write_search_h5(directory)
    tree = directory.read_tree()
    for node in changed:
        _draw_phase(directory, data, tree, node)
    if known.get(_STRATEGY) != seen[_STRATEGY]:
        _draw_search(directory, data)
    # Last, so that whatever a kill left undone is done the next time.
    write_json(directory.root / _MEMORY, seen)
    return Refreshed(report, tuple(node.id for node in changed))


def _known(directory: SearchDirectory) -> dict[str, str]:
    try:
        value = json.loads(read_bytes(directory.root / _MEMORY) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _signature(directory: SearchDirectory, node_ids: list[int], said: object) -> str:
    """What a phase's files are made of: the metrics by size and time, and what the tree says."""
    files = []
    for node_id in node_ids:
        for attempt in directory.phase(node_id).attempts():
            try:
                status = attempt.metrics.stat()
            except OSError:
                continue
            files.append((node_id, attempt.path.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr((files, said)).encode("utf-8", "replace")).hexdigest()


def _attributes(data: ReportData, node: NodeReport) -> dict[str, str | int | float | bool | None]:
    return {
        "search": data.name,
        "node": node.id,
        "kind": node.kind.value,
        "status": node.status.value,
        "simulated": data.simulated,
        "score": node.score,
        "best_step": node.best_step,
        "resume_node": node.resume_node,
        "resume_step": node.resume_step,
        **{f"configuration.{name}": value for name, value in (node.configuration or {}).items()},
    }


def _draw_phase(directory: SearchDirectory, data: ReportData, tree: Tree, node: NodeReport) -> None:
    folder = directory.phase(node.id).plots
    plots.curves(data.series[node.id], folder / "curves.png", title=f"Phase {node.id}", simulated=data.simulated)
    if data.best is not None and data.best.node != node.id:
        parts = strategies.path(tree, node.id)
        run = strategies.concatenated((part, data.series.get(part.node.id, Series())) for part in parts)
        title = f"Phase {node.id} against the best strategy"
        plots.overlay(run, data.strategy_series(), folder / "overlay.png", title=title, simulated=data.simulated)


def _draw_search(directory: SearchDirectory, data: ReportData) -> None:
    folder = directory.root / "plots"
    make_folder(folder)
    boundaries = [(phase.first_step, f"phase {phase.node}") for phase in data.strategy]
    title = "Best strategy: phase " + " > ".join(str(phase.node) for phase in data.strategy)
    plots.curves(
        data.strategy_series(), folder / "strategy.png", title=title, boundaries=boundaries, simulated=data.simulated
    )
    plots.best_so_far(data, folder / "best_so_far.png")
    plots.trajectories(data, folder / "trajectories.png")
    if data.nodes:
        write_bytes(folder / "tree.svg", render_tree(data).encode())


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m llmzero_hpc.report.views <folder of a search>\n")
        return 2
    os.nice(_NICENESS)
    try:
        refresh(Path(arguments[0]))
    except LLMZeroError as error:
        sys.stderr.write(f"{error.message}\n" + (f"{error.next_step}\n" if error.next_step else ""))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
