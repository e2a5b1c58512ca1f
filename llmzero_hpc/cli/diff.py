"""`diff`, `analyze`: strategies beside each other, and what they have in common."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, JsonOption, StateOption, locate
from llmzero_hpc.cli.run import is_settings

if TYPE_CHECKING:
    from llmzero_hpc.store.strategy_file import StrategyFile

_Strategy = "STRATEGY.YAML|SEARCH"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (diff, analyze):
        app.command()(command)


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A strategy file, or a search for its best strategy.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Two strategies beside each other, phase by phase."""
    from llmzero_hpc.report.strategy_diff import difference, lines

    found = difference(strategy_of(first, state), strategy_of(second, state))
    if as_json:
        json.dump({"format": 1, **found}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    for line in lines(found, (first, second)):
        typer.echo(line)


def analyze(
    strategies: Annotated[list[str], typer.Argument(metavar=_Strategy, help="One or more, from any searches.")],
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """What strategies have in common: parameters that moved, turned, and changed together, and what it gained."""
    from llmzero_hpc.analysis.structure import summary
    from llmzero_hpc.report.strategy_diff import structure_of_file

    structures = [structure_of_file(strategy_of(one, state)) for one in strategies]
    found = summary(structures)
    if as_json:
        document = {"format": 1, "summary": asdict(found), "strategies": [asdict(one) for one in structures]}
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    typer.echo(
        f"{found.transitions} transitions of {found.strategies} strategies: {found.improved} raised the validation "
        f"score, {found.unchanged} left it, {found.worsened} lowered it."
    )
    for kind, of_class in found.classes.items():
        if of_class.changes:
            typer.echo(
                f"  {kind.value}: {of_class.rises} rises, {of_class.falls} falls; "
                f"{of_class.reversing} of {of_class.parameters} parameters that moved turned, "
                f"{of_class.reversals} times in all"
            )
    for name, count in found.changed_in.items():
        if count:
            typer.echo(f"    {name}: changed in {count} of {found.transitions}")
    if found.coordinated:
        others = "" if found.other_gain is None else f", the others {found.other_gain:+.4f}"
        gain = "unknown" if found.coordinated_gain is None else f"{found.coordinated_gain:+.4f}"
        typer.echo(
            f"  {found.coordinated} transitions change three or more at once; they gained {gain} on average{others}."
        )


def strategy_of(name: str, state: Path) -> StrategyFile:
    """The strategy in a file, or the best one of a search.

    Raises:
        ConfigurationError: the file is no strategy.
        SearchNotFoundError: there is no such search, or it has no validation score yet.
    """
    from llmzero_hpc.report.strategy_file import best_strategy
    from llmzero_hpc.store.strategy_file import read_strategy

    return read_strategy(Path(name)) if is_settings(name) else best_strategy(locate(name, state))
