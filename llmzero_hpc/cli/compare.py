"""`compare`, `confirm`: methods, or strategies, against each other on the same seeds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, JsonOption, SearchArgument, StateOption, locate
from llmzero_hpc.cli.watching import busy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.analysis.comparison import Comparison
    from llmzero_hpc.controller.comparison import Member
    from llmzero_hpc.store.search_directory import SearchDirectory

    Found = tuple[tuple[Member, SearchDirectory], ...]

_TABLE_WIDTH = 120
WINNERS = "winners"
"""Folder in that of a comparison: each method's best strategy on fresh seeds."""
LookOption = Annotated[bool, typer.Option("--look", help="Show what there is so far; drive nothing.")]
AtOnceOption = Annotated[int | None, typer.Option("--at-once", min=1, max=64, help="Searches driven side by side.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (compare, confirm):
        app.command()(command)


def compare(
    plan: Annotated[Path, typer.Argument(metavar="COMPARE.YAML", help="Methods, seeds, a task and a budget.")],
    state: StateOption = DEFAULT_STATE,
    at_once: AtOnceOption = None,
    look: LookOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run methods on the same seeds, each under the same budget, and compare; the same command goes on after a kill."""
    from llmzero_hpc.controller.comparison import is_over, members, read_plan
    from llmzero_hpc.controller.confirmation import winners

    settings = read_plan(plan)
    folder, at_once = (state / settings.name).absolute(), at_once or settings.at_once
    found = _driven(members(settings), folder, at_once, look)
    again = folder / WINNERS
    trained: Found = ()
    # Whom to train anew is known once all searches are over.
    if settings.fresh_seeds and all(is_over(directory) for _, directory in found) and (again.is_dir() or not look):
        trained = _driven(winners(found, settings.fresh_seeds), again, at_once, look)
    _show(found, trained, folder, settings.compared_with, look, as_json)


def confirm(
    search: SearchArgument = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fresh seeds.")] = 8,
    first_seed: Annotated[int | None, typer.Option(min=0, help="The first of them; by default the next ones.")] = None,
    state: StateOption = DEFAULT_STATE,
    at_once: AtOnceOption = None,
    look: LookOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the best strategy of a search and its best static configuration anew on fresh seeds, with equal compute."""
    from llmzero_hpc.controller.confirmation import confirmation

    directory = locate(search, state)
    start = directory.record.config.seed + 1 if first_seed is None else first_seed
    folder = directory.root.parent / f"{directory.root.name}-confirmed"
    searches = confirmation(directory, range(start, start + seeds))
    found = _driven(searches, folder, at_once or 1, look)
    _show(found, (), folder, searches[0].method, look, as_json)


def _driven(searches: Sequence[Member], folder: Path, at_once: int, look: bool) -> Found:
    """Drive them unless they are only looked at."""
    from llmzero_hpc.controller.comparison import drive, existing, opened

    if look:
        return existing(searches, folder)
    with busy("Checking the searches"):
        found = opened(searches, folder)
    drive([directory for _, directory in found], at_once, _say)
    return found


def _show(found: Found, trained: Found, folder: Path, reference: str, look: bool, as_json: bool) -> None:
    """Show a comparison, and that of the winners on fresh seeds; keep both in their folders unless only looked at."""
    from llmzero_hpc.controller.comparison import comparison
    from llmzero_hpc.report.comparison_views import document

    parts = {folder: found} | ({folder / WINNERS: trained} if trained else {})
    results = {part: comparison(searches, reference) for part, searches in parts.items()}
    unit, simulated = _kind(found)
    shown = {part: document(one, name=part.name, unit=unit, simulated=simulated) for part, one in results.items()}
    if not look:
        for part, one in results.items():
            _keep(one, shown[part], part, {member.method: member.changes for member, _ in parts[part]})
    if as_json:
        json.dump(
            shown[folder] | {part.name: one for part, one in shown.items() if part != folder}, sys.stdout, indent=2
        )
        sys.stdout.write("\n")
        return
    for part, one in results.items():
        if part != folder:
            typer.echo("Each method's best strategy, trained anew on fresh seeds:")
        _print(one, unit, simulated)
    if not look:
        pages = " and ".join(str(part / "results.md") for part in parts)
        typer.echo(f"wrote {pages}, comparison.json and comparison.svg beside it")


def _keep(result: Comparison, shown: dict[str, Any], folder: Path, changes: dict[str, str]) -> None:
    """Write a comparison to its folder: plain values, a page, pictures."""
    from llmzero_hpc.report.comparison_markdown import page
    from llmzero_hpc.report.comparison_views import picture
    from llmzero_hpc.store.atomic import write_bytes, write_json

    unit, simulated = shown["unit"], shown["simulated"]
    write_json(folder / "comparison.json", shown)
    text = page(result, name=folder.name, unit=unit, simulated=simulated, changes=changes, picture="comparison.svg")
    write_bytes(folder / "results.md", text.encode())
    with busy("Drawing"):
        for kind in ("svg", "png"):
            picture(result, folder / f"comparison.{kind}", title=folder.name, unit=unit, simulated=simulated)


def _print(result: Comparison, unit: str, simulated: bool) -> None:
    from rich.console import Console

    from llmzero_hpc.report.comparison_views import sentences, table

    if simulated:
        typer.echo("SIMULATED: nothing was trained, all scores are made up.")
    Console(width=max(_TABLE_WIDTH, Console().width)).print(table(result, unit))
    for sentence in sentences(result):
        typer.echo(sentence)


def _kind(found: Found) -> tuple[str, bool]:
    """What compute is counted in, and whether scores are made up."""
    from llmzero_hpc.report.costs import device_unit

    config = found[0][1].record.config
    return device_unit(config), config.trainer == "rehearsal"


def _say(directory: SearchDirectory, what: str) -> None:
    sys.stderr.write(f"{directory.root.name} {what}\n")
