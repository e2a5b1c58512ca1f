"""Selection, commit and reading of trees of any size: CPU seconds and bytes, each size in a process of its own.

python benchmarks/growth.py SIZE FOLDER
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import cpu_seconds
from probe import peak_memory
from samples import running, search_of

from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import select
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from collections.abc import Sequence

PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Growth:
    """What one tree costs. Seconds are CPU seconds of one call.

    `changed_nodes` is how many of `tree.json`'s nodes one commit changes; the file is written whole all the same.
    """

    nodes: int
    select: float
    write_tree: float
    read_tree: float
    bytes: int
    peak_memory: int
    decision: str


def measure(size: int, folder: Path) -> Growth:
    """Measure one size in this process; eight of the nodes run, the rest is settled."""
    tree = running(size - PARALLEL, PARALLEL)
    directory = search_of(folder / f"search-{size}", tree)
    changed = [tree.replacing(replace(tree[size - 1], last_step=step)) for step in (1, 2)]

    def commit() -> None:
        changed.reverse()
        directory.write_tree(changed[0])

    opened = SearchDirectory.open(directory.root)
    return Growth(
        nodes=len(tree),
        select=cpu_seconds(lambda: select(tree, Rules())),
        write_tree=cpu_seconds(commit),
        read_tree=cpu_seconds(opened.read_tree),
        bytes=directory.tree_file.stat().st_size,
        peak_memory=peak_memory(),
        decision=str(select(tree, Rules())),
    )


def measured(sizes: Sequence[int]) -> list[Growth]:
    """Measure several sizes, each in a process of its own."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, str(size), folder]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        found.append(Growth(**json.loads(told)))
    return found


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1]), Path(sys.argv[2])))))
