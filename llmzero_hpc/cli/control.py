"""`stop`, `pause`, `resume`, `cancel`: requests to the controller, left as files, from any login node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, NodeArgument, SearchArgument, StateOption, existing_node, locate
from llmzero_hpc.cli.watching import waiting
from llmzero_hpc.report import words

if TYPE_CHECKING:
    from llmzero_hpc.store.control import StopRequest
    from llmzero_hpc.store.lease import Holder
    from llmzero_hpc.store.search_directory import SearchDirectory

_MOMENT_SECONDS = 60.0
"""How long `stop` waits to see what comes of it: a tick may wait so long for a slow squeue."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (stop, pause, resume, cancel):
        app.command()(command)


def stop(
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
    cancel_jobs: Annotated[
        bool, typer.Option("--cancel-jobs", help="Cancel the jobs of running phases, too; the phases can go on.")
    ] = False,
) -> None:
    """Stop the controller; running phases go on, and `start` or `run` takes the search up again."""
    from llmzero_hpc.cluster.controller_job import ControllerJobs, waiting_job
    from llmzero_hpc.controller.hosts import living_holder
    from llmzero_hpc.store.control import StopRequest

    directory = locate(search, state)
    name = directory.record.config.name
    holder = living_holder(directory)
    queued = waiting_job(directory)
    if queued is not None:
        ControllerJobs(directory).cancel()
        typer.echo(f"Took the controller's job {queued.job_id} out of the queue.")
    if holder is not None:
        _stop_controller(directory, holder, StopRequest.JOBS_TOO if cancel_jobs else StopRequest.CONTROLLER)
    elif cancel_jobs:
        _cancel_jobs(directory)
    elif queued is None:
        typer.echo(f"No controller drives {name}; nothing to stop.")


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


def _stop_controller(directory: SearchDirectory, holder: Holder, what: StopRequest) -> None:
    """Ask a controller to stop, wait a moment, and say what came of it."""
    from llmzero_hpc.controller.hosts import has_left
    from llmzero_hpc.store import control
    from llmzero_hpc.store.lease import silent_seconds

    name = directory.record.config.name
    control.request_stop(directory, what)
    with waiting(f"Waiting until {holder.place} has stopped") as progress:
        left = has_left(directory, holder, _MOMENT_SECONDS, progress)
    if not left:
        typer.echo(f"The controller of {name}, {holder.place}, is asked to stop; it does after its current tick.")
        typer.echo(f"  It was last heard of {silent_seconds(directory, holder):.0f} s ago.")
    elif what is control.StopRequest.CONTROLLER:
        typer.echo(f"The controller of {name} has stopped; running phases go on.")
    else:
        typer.echo(f"The controller of {name} has stopped, and its jobs are cancelled.")
        typer.echo(f"  next: `llmzero-hpc start {name}` goes on with their phases from their newest checkpoints")


def _cancel_jobs(directory: SearchDirectory) -> None:
    """What a controller does that is asked to stop with its jobs, where there is none to ask."""
    from llmzero_hpc.controller.daemon import Daemon
    from llmzero_hpc.errors import ClusterError
    from llmzero_hpc.store import control

    name = directory.record.config.name
    with Daemon(directory) as daemon:
        control.request_stop(directory, control.StopRequest.JOBS_TOO)
        outcome = daemon.tick()
        control.clear_stop(directory)
    if not outcome.stop_requested:
        raise ClusterError(f"the jobs of {name} are not cancelled: {outcome.waiting_for}", "try again later")
    typer.echo(f"No controller drives {name}; its jobs are cancelled.")
    typer.echo(f"  next: `llmzero-hpc start {name}` goes on with their phases from their newest checkpoints")


def _is_driven(directory: SearchDirectory) -> bool:
    from llmzero_hpc.controller.hosts import living_holder

    return living_holder(directory) is not None


def _is_over(directory: SearchDirectory) -> bool:
    from llmzero_hpc.report.data import SearchState
    from llmzero_hpc.report.reading import read

    return read(directory, metrics=()).state is SearchState.FINISHED


def _hint(directory: SearchDirectory) -> None:
    name = directory.record.config.name
    if not _is_driven(directory):
        typer.echo(
            f"  next: no controller runs; `llmzero-hpc start {name}` starts one, "
            f"`llmzero-hpc tick {name}` does one step"
        )
