"""`stop`, `pause`, `resume`, `cancel`: requests to the controller, left as files, from any login node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, NodeArgument, SearchArgument, StateOption, existing_node, locate
from llmzero_hpc.report import words

if TYPE_CHECKING:
    from llmzero_hpc.store.search_directory import SearchDirectory


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (stop, pause, resume, cancel):
        app.command()(command)


def stop(search: SearchArgument = None, state: StateOption = DEFAULT_STATE) -> None:
    """Stop the controller after its current tick; running phases go on, and `run` takes the search up again."""
    from llmzero_hpc.store import control

    directory = locate(search, state)
    name = directory.record.config.name
    if not _is_driven(directory):
        typer.echo(f"No controller drives {name}; nothing to stop.")
        return
    control.request_stop(directory)
    typer.echo(f"The controller of {name} stops after its current tick; running phases go on.")


def pause(search: SearchArgument = None, state: StateOption = DEFAULT_STATE) -> None:
    """Start no further phases; those that run go on."""
    from llmzero_hpc.store import control

    directory = locate(search, state)
    name = directory.record.config.name
    if _is_over(directory):
        typer.echo(f"{name} is over; nothing to pause.")
        return
    control.request_pause(directory)
    typer.echo(f"{name} is paused: no new phase starts until `llmzero-hpc resume {name}`.")


def resume(search: SearchArgument = None, state: StateOption = DEFAULT_STATE) -> None:
    """Undo `pause`."""
    from llmzero_hpc.store import control

    directory = locate(search, state)
    name = directory.record.config.name
    if not control.is_paused(directory):
        typer.echo(f"{name} is not paused; nothing to resume.")
        return
    control.clear_pause(directory)
    typer.echo(f"{name} may start phases again.")
    if not _is_over(directory):
        _hint(directory)


def cancel(node: NodeArgument, search: SearchArgument = None, state: StateOption = DEFAULT_STATE) -> None:
    """Take one phase out: its job is cancelled and its place in the tree becomes free."""
    from llmzero_hpc.store import control

    directory = locate(search, state)
    found = existing_node(directory, node)
    if found.status.is_final:
        typer.echo(f"Node {node} has ended already ({words.STATUS_WORDS[found.status]}); nothing to cancel.")
        return
    control.request_cancel(directory, node)
    if _is_driven(directory):
        typer.echo(f"Node {node} ({words.STATUS_WORDS[found.status]}) is cancelled at the controller's next tick.")
        return
    job = " its job runs until then." if found.attempt is not None and found.attempt.job else ""
    typer.echo(
        f"Node {node} ({words.STATUS_WORDS[found.status]}) is cancelled when a controller runs again"
        + (f";{job}" if job else ".")
    )
    _hint(directory)


def _is_driven(directory: SearchDirectory) -> bool:
    from llmzero_hpc.store.lease import holder_of

    holder = holder_of(directory)
    return holder is not None and not holder.is_gone


def _is_over(directory: SearchDirectory) -> bool:
    from llmzero_hpc.report.data import SearchState
    from llmzero_hpc.report.reading import read

    return read(directory, metrics=()).state is SearchState.FINISHED


def _hint(directory: SearchDirectory) -> None:
    name = directory.record.config.name
    if not _is_driven(directory):
        typer.echo(
            f"  next: no controller runs; `llmzero-hpc run {name}` starts one, `llmzero-hpc tick {name}` does one step"
        )
