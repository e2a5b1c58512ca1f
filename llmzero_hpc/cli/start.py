"""`start`, `drive`: a controller that needs no terminal, on a login node, in a job of its own, or by cron."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, SearchArgument, StateOption, locate
from llmzero_hpc.cli.run import TakeOverOption, is_settings, opened, show_plan
from llmzero_hpc.cli.watching import following, waiting
from llmzero_hpc.controller.hosts import Choice, Host
from llmzero_hpc.errors import ControllerError, LeaseError, StorageError

if TYPE_CHECKING:
    from llmzero_hpc.controller.daemon import LoopEnd
    from llmzero_hpc.controller.tick import Outcome
    from llmzero_hpc.store.lease import Holder
    from llmzero_hpc.store.search_directory import SearchDirectory

_ENDED_BY_SLURM_SECONDS = 600.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (start, drive):
        app.command()(command)


def start(
    search: Annotated[
        str | None, typer.Argument(metavar="SEARCH.YAML|SEARCH", help="What to start, or to go on with.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    on: Annotated[
        Host | None, typer.Option("--on", help="Where the controller lives; chosen and explained if left out.")
    ] = None,
    take_over: TakeOverOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be done; start nothing.")
    ] = False,
) -> None:
    """Start a search, or go on with one, unattended; with --on, move a controller that runs elsewhere."""
    if search is None or not is_settings(search):
        directory = locate(search, state)
        if dry_run:
            _tell_choice(directory.record.config.name, _chosen(directory, on), planned=True)
        else:
            _start(directory, on, take_over=take_over)
        return
    from llmzero_hpc.config import load
    from llmzero_hpc.controller.hosts import chosen

    config = load(Path(search))
    if dry_run:
        show_plan(config, state / config.name, as_json=False)
        _tell_choice(config.name, Choice(on, "as asked") if on else chosen(config), planned=True)
        return
    _start(opened(config, state / config.name), on, take_over=take_over)


def drive(
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
    once: Annotated[bool, typer.Option("--once", help="Make one tick, for cron; silent if a controller runs.")] = False,
    take_over: TakeOverOption = False,
) -> None:
    """Be the controller, without a terminal: what `start` runs, and batch scripts, service managers and cron may."""
    from rich.console import Console

    from llmzero_hpc.controller.daemon import Daemon
    from llmzero_hpc.controller.hosts_log import limit_log
    from llmzero_hpc.controller.hosts_login import log_file

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    directory = locate(search, state)
    log = log_file(directory)
    try:
        daemon = Daemon(directory, take_over=take_over, by_cron=once)
    except LeaseError:
        if once:
            return
        raise
    if not once:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        typer.echo(f"{now} A controller begins on {socket.gethostname()}, pid {os.getpid()}.")
    with daemon, following(directory, Console(width=1000)) as print_new:

        def after_tick(_outcome: Outcome) -> None:
            # The log is on the file system that may have refused the tick.
            with suppress(OSError, StorageError):
                print_new()
                if daemon.storage_problem:
                    typer.echo(f"{time.strftime('%H:%M:%S')} {daemon.storage_problem}")
                sys.stdout.flush()
                limit_log(log)

        if once:
            daemon.tick_alone()
            limit_log(log)
            return
        end = daemon.loop(after_tick, outlasts_storage=True)
        if end.finished:
            daemon.views.refresh()
    typer.echo(f"The controller ends: {end.reason}.")
    sys.stdout.flush()
    _leave(directory, end)


def _start(directory: SearchDirectory, on: Host | None, *, take_over: bool) -> None:
    from llmzero_hpc.cluster.controller_job import ControllerJobs, waiting_job
    from llmzero_hpc.controller.hosts import is_at, living_holder

    name = directory.record.config.name
    holder, queued = living_holder(directory), waiting_job(directory)
    if holder is not None and not take_over:
        if on is None or is_at(holder, on):
            typer.echo(f"{name} is driven already, by {holder.place}.")
            if on is None:
                typer.echo("  next: `--on login`, `--on slurm` or `--on cron` moves the controller")
            return
    elif queued is not None and on in {None, Host.SLURM}:
        typer.echo(f"The controller of {name} waits in the queue already, as job {queued.job_id} ({queued.reason}).")
        return
    choice = _chosen(directory, on)
    if choice.host is Host.CRON:
        _show_cron(directory, holder)
        return
    if choice.host is Host.SLURM:
        ControllerJobs(directory)  # what is wrong with it is said before anything is stopped
    if holder is not None and not take_over:
        _make_leave(directory, holder)
    elif queued is not None:
        ControllerJobs(directory).cancel()
        typer.echo(f"Took the controller's job {queued.job_id} out of the queue.")
    if choice.host is Host.LOGIN:
        _start_here(directory, choice, take_over=take_over)
    else:
        _submit(directory, choice, take_over=take_over)


def _start_here(directory: SearchDirectory, choice: Choice, *, take_over: bool) -> None:
    from llmzero_hpc.controller.hosts_login import detach, log_file

    name = directory.record.config.name
    with waiting("Waiting for the controller's first heartbeat") as progress:
        pid = detach(directory, take_over=take_over, progress=progress)
    _tell_choice(name, choice)
    typer.echo(f"The controller of {name} runs as process {pid} on {socket.gethostname()}; log out as you like.")
    typer.echo(f"  log {log_file(directory)}")
    typer.echo(f"  next: `llmzero-hpc status {name}` shows how it goes, `llmzero-hpc stop {name}` ends it")


def _submit(directory: SearchDirectory, choice: Choice, *, take_over: bool) -> None:
    from llmzero_hpc.cluster.controller_job import ControllerJobs
    from llmzero_hpc.store.lease import Lease

    name = directory.record.config.name
    jobs = ControllerJobs(directory)
    lease = Lease.acquire(directory, take_over=take_over)
    try:
        with waiting("Submitting the controller's job"):
            job = jobs.submit()
    finally:
        lease.release()
    _tell_choice(name, choice)
    typer.echo(f"The controller of {name} is job {job.job_id}; it starts when Slurm starts the job.")
    typer.echo(f"  next: `llmzero-hpc status {name}` shows how it goes, `llmzero-hpc stop {name}` ends it")


def _show_cron(directory: SearchDirectory, holder: Holder | None) -> None:
    from llmzero_hpc.controller.hosts_cron import CRON_MINUTES, cron_lines

    lines = cron_lines(directory)
    typer.echo(f"# Every {CRON_MINUTES} minutes one tick; it does nothing while another controller drives the search.")
    typer.echo("# Environment variables with keys or webhooks have to be set there, too.")
    if holder is not None:
        typer.echo(f"# Now it is driven by {holder.place}, until `llmzero-hpc stop {directory.record.config.name}`.")
    typer.echo("\n# Install with `crontab -e`, on one login node:")
    typer.echo(lines.crontab)
    if lines.scrontab:
        typer.echo("\n# or with `scrontab -e`, so that Slurm finds a machine for each tick:")
        typer.echo(lines.scrontab)


def _make_leave(directory: SearchDirectory, holder: Holder) -> None:
    from llmzero_hpc.controller.hosts import is_made_to_leave
    from llmzero_hpc.store.lease import patience_seconds, silent_seconds

    with waiting(f"Waiting until {holder.place} has stopped") as progress:
        left = is_made_to_leave(directory, holder, progress)
    if left:
        typer.echo(f"Stopped {holder.place}; running phases go on.")
        return
    silent = silent_seconds(directory, holder)
    wait = max(0.0, patience_seconds(directory) - silent)
    raise ControllerError(
        f"{holder.place} did not stop; it was last heard of {silent:.0f} s ago",
        f"if it is gone for good, `--take-over` takes the search from it; without, that is done in {wait / 60:.0f} min",
    )


def _leave(directory: SearchDirectory, end: LoopEnd) -> None:
    """The last act of a controller that runs in a job."""
    from llmzero_hpc.cluster.controller_job import own_job, requeue_own
    from llmzero_hpc.store.daemon_file import clear_queued

    job = own_job()
    if job is None:
        return
    if end.signal == signal.SIGUSR1:
        requeue_own(directory, job)
    elif end.signal is None:
        clear_queued(directory)
    elif end.signal == signal.SIGTERM:
        # A job that ends by itself now would have completed, where Slurm may mean to requeue it.
        time.sleep(_ENDED_BY_SLURM_SECONDS)


def _chosen(directory: SearchDirectory, on: Host | None) -> Choice:
    from llmzero_hpc.controller.hosts import chosen

    return chosen(directory.record.config) if on is None else Choice(on, "as asked")


def _tell_choice(name: str, choice: Choice, *, planned: bool = False) -> None:
    where = {Host.LOGIN: "on this machine", Host.SLURM: "in a job of its own", Host.CRON: "by cron"}[choice.host]
    verb = "would live" if planned else "lives"
    typer.echo(f"The controller of {name} {verb} {where}: {choice.reason}.")
