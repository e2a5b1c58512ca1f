"""Every method on the tasks of this benchmark, and `docs/results.md` with what came of it, wins and losses alike.

    python benchmarks/strategy/results.py state docs --only two_lengths --at-once 2

Runs `llmzero-hpc compare` on each task, and on the searches that leave something out, in the folder `state`; it goes on
where it was killed. The page has the tables of all that was ever finished: its figures are kept in `docs/data/results`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phases import TASKS

from llmzero_hpc.cli.compare import WINNERS
from llmzero_hpc.controller.comparison import read_plan
from llmzero_hpc.store.atomic import make_folder, write_bytes, write_json

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Comparison:
    """What has a place of its own on the page.

    Attributes:
        plan: what `llmzero-hpc compare` runs.
        parts: its tables, and the folders that they are in.
    """

    name: str
    plan: Path
    parts: Mapping[str, str]


COMPARISONS = {
    **{task: Comparison(task, FOLDER / task / "compare.yaml", {"searches": "", "winners": WINNERS}) for task in TASKS},
    "ablations": Comparison("ablations", FOLDER / "two_lengths" / "ablations.yaml", {"searches": ""}),
    "early_stops": Comparison("early_stops", FOLDER / "trap" / "ablations.yaml", {"searches": ""}),
}


def compare(comparison: Comparison, state: Path, at_once: int) -> None:
    """Run what is left of it."""
    command = [sys.executable, "-m", "llmzero_hpc.cli.main", "compare", str(comparison.plan)]
    subprocess.run([*command, "--state", str(state), "--at-once", str(at_once)], check=True)


def keep(comparison: Comparison, state: Path, docs: Path) -> None:
    """Copy its figures, tables and picture to the documentation."""
    found, name = state / read_plan(comparison.plan).name, comparison.name
    data = docs / "data" / "results"
    make_folder(data)
    figures = {part: _figures(found / where / "comparison.json") for part, where in comparison.parts.items()}
    write_json(data / f"{name}.json", figures)
    for part, where in comparison.parts.items():
        write_bytes(data / f"{name}-{part}.md", (found / where / "results.md").read_bytes())
    write_bytes(docs / "images" / f"results-{name}.png", (found / "comparison.png").read_bytes())


def _figures(path: Path) -> dict[str, Any]:
    """All but the bands, which follow from the curves of the runs."""
    return {key: value for key, value in json.loads(path.read_bytes()).items() if key != "bands"}


def page(docs: Path, text: str) -> str:
    """The document: what is written by hand, with the tables in their places."""
    for name, comparison in COMPARISONS.items():
        parts = [docs / "data" / "results" / f"{name}-{part}.md" for part in comparison.parts]
        tables = "Not compared yet."
        if all(part.is_file() for part in parts):
            picture = f"![{name}: best validation score so far against compute](images/results-{name}.png)\n"
            tables = "\n".join(_nested(part.read_text(encoding="utf-8"), picture) for part in parts)
        text = text.replace(f"<!-- {name} -->", tables)
    return text


def _nested(text: str, picture: str) -> str:
    """A page of `compare` as a part of this one: its headings two levels down, its picture from here."""
    head, _, body = text.partition("\n")
    title = head.removeprefix("# ")
    is_winners = title == WINNERS
    heading = "### Winners, trained anew on fresh seeds" if is_winners else "### The searches"
    body = re.sub(r"^!\[.*$\n?", "" if is_winners else picture, body, flags=re.MULTILINE)
    return heading + "\n" + re.sub(r"^## ", "#### ", body, flags=re.MULTILINE).rstrip("\n") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path, help="folder to keep the searches in")
    parser.add_argument("docs", type=Path, help="folder of the page and its data")
    parser.add_argument("--only", choices=list(COMPARISONS), action="append", help="may be repeated; none is all")
    parser.add_argument("--at-once", type=int, default=2, help="searches driven side by side")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    options = parser.parse_args()
    for name in [] if options.page else options.only or list(COMPARISONS):
        compare(COMPARISONS[name], options.state.absolute(), options.at_once)
        keep(COMPARISONS[name], options.state.absolute(), options.docs)
    template = (FOLDER / "results_page.md").read_text(encoding="utf-8")
    write_bytes(options.docs / "results.md", page(options.docs, template).encode())


if __name__ == "__main__":
    main()
