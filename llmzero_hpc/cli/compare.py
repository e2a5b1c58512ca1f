"""`compare`, `confirm`: methods, or strategies, against each other on the same seeds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, JsonOption, SearchArgument, StateOption, locate
from llmzero_hpc.cli.watching import busy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.controller.comparison import Member
    from llmzero_hpc.store.search_directory import SearchDirectory

_TABLE_WIDTH = 100
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
    from llmzero_hpc.controller.comparison import members, read_plan

    found = read_plan(plan)
    _carry_out(
        members(found), (state / found.name).absolute(), found.compared_with, at_once or found.at_once, look, as_json
    )


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
    _carry_out(searches, folder, searches[0].method, at_once or 1, look, as_json)


def _carry_out(
    searches: Sequence[Member], folder: Path, reference: str, at_once: int, look: bool, as_json: bool
) -> None:
    """Drive them unless they are only looked at; show the comparison and keep it in the folder."""
    from rich.console import Console

    from llmzero_hpc.controller.comparison import comparison, drive, existing, opened
    from llmzero_hpc.report.comparison_markdown import page
    from llmzero_hpc.report.comparison_views import document, picture, sentences, table
    from llmzero_hpc.report.costs import device_unit
    from llmzero_hpc.store.atomic import write_bytes, write_json

    if look:
        found = existing(searches, folder)
    else:
        with busy("Checking the searches"):
            found = opened(searches, folder)
        drive([directory for _, directory in found], at_once, _say)
    result = comparison(found, reference)
    config = found[0][1].record.config
    unit, simulated = device_unit(config), config.trainer == "rehearsal"
    shown = document(result, name=folder.name, unit=unit, simulated=simulated)
    if as_json:
        json.dump(shown, sys.stdout, indent=2)
        sys.stdout.write("\n")
    if not look:
        write_json(folder / "comparison.json", shown)
        text = page(
            result,
            name=folder.name,
            unit=unit,
            simulated=simulated,
            changes={one.method: one.changes for one, _ in found},
            picture="comparison.svg",
        )
        write_bytes(folder / "results.md", text.encode())
        with busy("Drawing"):
            for kind in ("svg", "png"):
                picture(result, folder / f"comparison.{kind}", title=folder.name, unit=unit, simulated=simulated)
    if as_json:
        return
    if simulated:
        typer.echo("SIMULATED: nothing was trained, all scores are made up.")
    Console(width=max(_TABLE_WIDTH, Console().width)).print(table(result, unit))
    for sentence in sentences(result):
        typer.echo(sentence)
    if not look:
        typer.echo(f"wrote {folder / 'results.md'}, comparison.json and comparison.svg beside it")


def _say(directory: SearchDirectory, what: str) -> None:
    sys.stderr.write(f"{directory.root.name} {what}\n")
