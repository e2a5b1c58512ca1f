"""What one refresh of pictures, HDF5 files and report costs: a process of its own, once for each phase that ends."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import Run
from samples import search_of, tree_of, write_phase_files

if TYPE_CHECKING:
    from llmzero_hpc.search.tree import Tree


@dataclass(frozen=True, slots=True)
class ViewsCost:
    """A refresh after the last of `phases` phases has ended, when all others are drawn already; and of all at once."""

    phases: int
    all_at_once: Run
    one_ended: Run
    nothing_changed: Run


def measured(phases: int) -> ViewsCost:
    """Measure a search of this many phases."""
    folder = Path(tempfile.mkdtemp())
    try:
        tree = tree_of(phases)
        directory = search_of(folder / "bench", tree)
        for node in tree:
            write_phase_files(directory, node)
        command = [sys.executable, "-m", "llmzero_hpc.report.views", str(directory.root)]
        all_at_once = Run.of(command)
        directory.write_tree(_newest_changed(tree))
        return ViewsCost(phases, all_at_once, Run.of(command), Run.of(command))
    finally:
        shutil.rmtree(folder)


def _newest_changed(tree: Tree) -> Tree:
    node = tree[len(tree) - 1]
    return tree.replacing(replace(node, problem="changed"))
