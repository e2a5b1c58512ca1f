"""`replay`: a strategy file trained anew, on its own task or on another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, StateOption
from llmzero_hpc.cli.run import drive, opened, show_plan

if TYPE_CHECKING:
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.store.strategy_file import StrategyFile

_LONGEST_NAME = 40


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    strategy: Annotated[Path, typer.Argument(metavar="STRATEGY.YAML", help="A file that `export` wrote.")],
    task: Annotated[
        Path | None,
        typer.Option(metavar="SEARCH.YAML", help="Train on this one's model, data and cluster instead of its own."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new search.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Another seed trains another model.")] = 0,
    state: StateOption = DEFAULT_STATE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and show the first phase; start nothing.")
    ] = False,
) -> None:
    """Train a strategy anew, phase by phase; with other training rows its phases keep their epochs."""
    from llmzero_hpc.config import load
    from llmzero_hpc.store.strategy_file import read_strategy

    found = read_strategy(strategy)
    config = replayed(
        found, strategy, name or f"{found.search}-again"[:_LONGEST_NAME], seed, None if task is None else load(task)
    )
    if dry_run:
        show_plan(config, state / config.name, as_json=False)
        return
    for number, (phase, anew) in enumerate(zip(found.phases, found.configurations(), strict=True), start=1):
        typer.echo(f"phase {number}: steps {phase.first_step} to {phase.last_step}, {anew.epochs:.4g} epochs")
    drive(opened(config, state / config.name))


def replayed(
    strategy: StrategyFile, file: Path, name: str, seed: int, task: SearchConfig | None = None
) -> SearchConfig:
    """The search that trains a strategy anew, on this machine, or as the search of another task would.

    Raises:
        ConfigurationError: the name is no name, or the strategy does not fit the task.
    """
    from llmzero_hpc.config import checked_settings
    from llmzero_hpc.sections import Rehearsal

    rehearsal = Rehearsal(train_rows=strategy.train_rows, failure_rate=0)
    start = (
        {
            "trainer": strategy.trainer,
            "model": strategy.model,
            "task": strategy.task,
            "bounds": strategy.bounds,
            "validate_every_steps": strategy.validate_every_steps,
            "hardware": strategy.hardware,
            "rehearsal": rehearsal,
            "configuration": strategy.phases[0].configuration,
        }
        if task is None
        else {key: getattr(task, key) for key in type(task).model_fields}
    )
    own = {
        "name": name,
        "seed": seed,
        "method": {"kind": "transfer", "strategy": file.resolve()},
        "budget": {"iterations": len(strategy.phases)},
    }
    return checked_settings({**start, **own}, str(file))
