"""The page with what methods came to on the strategy benchmark: written from what is kept of the comparisons."""

from __future__ import annotations

from pathlib import Path

import results
from phases import TASKS

DOCS = Path(__file__).parents[2] / "docs"
TEMPLATE = (results.FOLDER / "results_page.md").read_text(encoding="utf-8")
TABLES = "# {title}\n\nSeeds 1.\n\n| method |\n\n![Best](comparison.svg)\n\n## a minus the others\n"


def test_every_comparison_has_its_place_on_the_page() -> None:
    assert all(f"<!-- {name} -->" in TEMPLATE for name in results.COMPARISONS)
    assert set(TASKS) < set(results.COMPARISONS)


def test_the_page_is_what_the_figures_say() -> None:
    assert (DOCS / "results.md").read_text(encoding="utf-8") == results.page(DOCS, TEMPLATE)


def test_tables_become_parts_of_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "results"
    folder.mkdir(parents=True)
    for part, title in (("searches", "strategy-trap"), ("winners", "winners")):
        (folder / f"trap-{part}.md").write_text(TABLES.format(title=title))
    found = results.page(tmp_path, "<!-- trap -->\n<!-- near_tie -->\n")
    assert found.count("Not compared yet.") == 1
    assert [line for line in found.splitlines() if line.startswith("#")] == [
        "### The searches",
        "#### a minus the others",
        "### Winners, trained anew on fresh seeds",
        "#### a minus the others",
    ]
    assert found.count("](images/results-trap.png)") == 1
    assert "comparison.svg" not in found
