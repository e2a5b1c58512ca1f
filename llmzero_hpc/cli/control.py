"""`stop`, `pause`, `resume`, `cancel`: requests to the controller, left as files, from any login node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, SearchArgument, StateOption, locate
from llmzero_hpc.errors import SearchNotFoundError

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
    if _controller(directory) is None:
        typer.echo(f"No controller is running {directory.record.config.name}; nothing to stop.")
        return
    control.request_stop(directory)
    typer.echo(f"Asked the controller of {directory.record.config.name} to stop. Running phases go on.")


def pause(search: SearchArgument = None, state: StateOption = DEFAULT_STATE) -> None:
    """Start no further phases; those that run go on."""
    from llmzero_hpc.store import control

    directory = locate(search, state)
    control.request_pause(directory)
    typer.echo(f"{directory.record.config.name} is paused: no new phases until `llmzero-hpc resume`.")


def resume(search: SearchArgument = None, state: StateOption = DEFAULT_STATE) -> None:
    """Undo `pause`."""
    from llmzero_hpc.store import control

    directory = locate(search, state)
    control.clear_pause(directory)
    typer.echo(f"{directory.record.config.name} may start phases again.")
    _hint(directory)


def cancel(
    node: Annotated[int, typer.Argument(help="Number of the phase.", min=0)],
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Take one phase out: its job is cancelled and its place in the tree becomes free."""
    from llmzero_hpc.store import control

    directory = locate(search, state)
    tree = directory.read_tree()
    if node >= len(tree):
        raise SearchNotFoundError(f"there is no node {node}", f"the tree has nodes 0 to {len(tree) - 1}")
    if tree[node].status.is_final:
        typer.echo(f"Node {node} has ended already ({tree[node].status.value}); nothing to cancel.")
        return
    control.request_cancel(directory, node)
    typer.echo(f"Node {node} will be cancelled at the next tick.")
    _hint(directory)


def _controller(directory: SearchDirectory) -> object | None:
    from llmzero_hpc.store.lease import holder_of

    return holder_of(directory)


def _hint(directory: SearchDirectory) -> None:
    if _controller(directory) is None:
        typer.echo(f"  next: no controller is running; `llmzero-hpc run {directory.record.config.name}` starts one")
