"""What looking at a search costs: `status` by tree size, against bare Python, and where its time goes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import Footprint, Run, medians
from samples import running, search_of, write_phase_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.store.search_directory import SearchDirectory

PARALLEL = 8
_SCRIPT = "import sys; from llmzero_hpc.cli.main import main; main()"
"""What the installed `llmzero-hpc` does."""
_MAIN = "llmzero_hpc.cli.main:main"
_IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \|( *)(\S+)$", re.MULTILINE)
_MICROSECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class StatusCost:
    """`status` and `status --json` of a search with `nodes` phases, eight of them running, beside bare processes."""

    nodes: int
    python: Run
    libraries: Run
    status: Run
    as_json: Run
    status_memory: Footprint
    json_memory: Footprint


@dataclass(frozen=True, slots=True)
class ImportTime:
    """Seconds of importing a package for `status`, with all that it brings along but no package that is listed."""

    package: str
    seconds: float


def _search(nodes: int, folder: Path) -> SearchDirectory:
    tree = running(nodes - PARALLEL, PARALLEL)
    directory = search_of(folder / "bench", tree)
    for node in tree.active():
        write_phase_files(directory, node)
    return directory


def measured(sizes: Sequence[int], repeats: int) -> list[StatusCost]:
    """Medians of `repeats` runs for each size."""
    found = []
    for nodes in sizes:
        folder = Path(tempfile.mkdtemp())
        try:
            search = str(_search(nodes, folder).root)
            python = sys.executable
            runs = medians(
                {
                    "python": [python, "-c", "pass"],
                    "libraries": [python, "-c", "import typer, rich, pydantic"],
                    "status": [python, "-c", _SCRIPT, "status", search],
                    "json": [python, "-c", _SCRIPT, "status", search, "--json"],
                },
                repeats,
            )
            found.append(
                StatusCost(
                    nodes=nodes,
                    python=runs["python"],
                    libraries=runs["libraries"],
                    status=runs["status"],
                    as_json=runs["json"],
                    status_memory=Footprint.of(_MAIN, "status", search),
                    json_memory=Footprint.of(_MAIN, "status", search, "--json"),
                )
            )
        finally:
            shutil.rmtree(folder)
    return found


def import_times(repeats: int) -> list[ImportTime]:
    """Where the start of `status` goes, by package, longest first: each the least of several runs."""
    folder = Path(tempfile.mkdtemp())
    try:
        search = str(_search(PARALLEL + 1, folder).root)
        command = [sys.executable, "-X", "importtime", "-c", _SCRIPT, "status", search]
        tables = [
            _by_package(subprocess.run(command, check=True, capture_output=True, text=True).stderr)
            for _ in range(repeats)
        ]
    finally:
        shutil.rmtree(folder)
    least = {name: min(table.get(name, 0.0) for table in tables) for name in tables[0]}
    return sorted((ImportTime(*item) for item in least.items()), key=lambda item: -item.seconds)


def _by_package(report: str) -> dict[str, float]:
    """Own time of each module, summed by top-level package; the standard library is one."""
    total: dict[str, float] = {}
    for own, _, _, module in _IMPORT.findall(report):
        package = module.partition(".")[0]
        name = "the standard library" if package in sys.stdlib_module_names else package
        total[name] = total.get(name, 0.0) + int(own) * _MICROSECONDS
    return total
