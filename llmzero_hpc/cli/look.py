"""`status`, `tree`, `show`, `logs`, `plot`, `report`, `export`: reading a search without a lease or the cluster."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmzero_hpc.cli.locate import (
    DEFAULT_STATE,
    JsonOption,
    NodeArgument,
    SearchArgument,
    StateOption,
    existing_node,
    locate,
)
from llmzero_hpc.cli.watching import busy
from llmzero_hpc.errors import ConfigurationError, SearchNotFoundError
from llmzero_hpc.report import words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmzero_hpc.store.search_directory import SearchDirectory

_FOLLOW_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, tree, show, logs, plot, report, export):
        app.command()(command)


def status(
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until the search is over.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Where the search stands: running phases, best strategy, budget, what happens next."""
    from llmzero_hpc.report.reading import read

    directory = locate(search, state)
    if as_json:
        from llmzero_hpc.report.data import to_json

        _print_json(to_json(read(directory)))
    elif watch:
        _watch(directory)
    else:
        from llmzero_hpc.report.terminal import status_view

        _print(status_view(read(directory)))


def tree(search: SearchArgument = None, state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """The tree of phases: what changed from each to the next, and what it scored."""
    from llmzero_hpc.report.reading import read

    data = read(locate(search, state), metrics=())
    if as_json:
        from llmzero_hpc.report.data import to_json

        _print_json(to_json(data)["nodes"])
    else:
        from llmzero_hpc.report.terminal import tree_view

        _print(tree_view(data))


def show(
    node: NodeArgument,
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
    agents: Annotated[
        bool, typer.Option("--agents", help="What language models were asked about it, and what they said.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """One phase: configuration, diagnosis, attempts, checkpoints; or its calls of language models."""
    from llmzero_hpc.report.reading import read

    directory = locate(search, state)
    existing_node(directory, node)
    if agents:
        _show_calls(directory, node, as_json=as_json)
        return
    data = read(directory, metrics=(node,))
    if as_json:
        from llmzero_hpc.report.data import to_json

        _print_json(to_json(data)["nodes"][node])
    else:
        from llmzero_hpc.report.terminal_phase import show_view

        attempts = directory.phase(node).attempts()
        _print(show_view(data, node, attempts[-1].trainer_log if attempts else None))


def logs(
    node: NodeArgument,
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which attempt; the newest otherwise.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 40,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines while the phase runs.")
    ] = False,
) -> None:
    """The trainer's log of a phase."""
    directory = locate(search, state)
    found = existing_node(directory, node)
    name = directory.record.config.name
    if not found.attempts:
        raise SearchNotFoundError(
            f"node {node} ({words.STATUS_WORDS[found.status]}) has not been submitted, so it has no log",
            f"`llmzero-hpc status {name}` tells what it waits for",
        )
    number = attempt or len(found.attempts)
    if number > len(found.attempts):
        raise SearchNotFoundError(
            f"node {node} has no attempt {number}, only {len(found.attempts)}", f"`llmzero-hpc show {node}` lists them"
        )
    path = directory.phase(node).attempt(number).trainer_log
    if not path.exists():
        raise SearchNotFoundError(
            f"attempt {number} of node {node} ({words.STATUS_WORDS[found.status]}) has written no log yet",
            f"`llmzero-hpc status {name}` tells how far it is",
        )
    with path.open(encoding="utf-8", errors="replace") as log:
        for line in deque(log, maxlen=lines):
            typer.echo(line, nl=False)
        over = not follow
        while not over:
            # asked before reading: what is written until the end is read, too
            over = directory.read_tree()[node].status.is_final
            for line in log:
                typer.echo(line, nl=False)
            if not over:
                time.sleep(_FOLLOW_SECONDS)


def plot(
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
    node: Annotated[
        int | None, typer.Option("--node", min=0, help="Pictures of one phase; else of the whole search.")
    ] = None,
) -> None:
    """Draw the curves of a phase (also against the best strategy), or of the search; prints where they are."""
    from llmzero_hpc.report.views import refresh

    directory = locate(search, state)
    if node is not None:
        existing_node(directory, node)
    with busy("Drawing"):
        refresh(directory.root)
    folder = directory.root / "plots" if node is None else directory.phase(node).plots
    pictures = sorted(folder.glob("*.png")) + sorted(folder.glob("*.svg"))
    if not pictures:
        raise SearchNotFoundError("there is nothing to draw yet: no metrics", "`llmzero-hpc status` tells what runs")
    for path in pictures:
        typer.echo(str(path))


def report(search: SearchArgument = None, state: StateOption = DEFAULT_STATE) -> None:
    """Write the report (one HTML file, no network), the pictures and the HDF5 files anew."""
    from llmzero_hpc.report.views import refresh

    directory = locate(search, state)
    with busy("Writing the report"):
        refreshed = refresh(directory.root)
    typer.echo(str(refreshed.report))


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write; made if it is not there.")],
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also write scripts that train the strategy anew, without the search.")
    ] = False,
) -> None:
    """Take the result out: the best strategy as YAML, with its adapter."""
    from llmzero_hpc.cluster.chain import links, write_chain
    from llmzero_hpc.report.strategy_file import best_adapter, strategy_document
    from llmzero_hpc.store.atomic import make_folder, refusals, write_bytes
    from llmzero_hpc.trainers.checkpoints import is_adapter, whole_folder

    directory = locate(search, state)
    document = strategy_document(directory)
    adapter = best_adapter(directory)
    if not is_adapter(adapter):
        raise SearchNotFoundError(f"the best adapter is gone: {adapter}", "restore it; `llmzero-hpc tree` shows others")
    target, chain_folder = folder / "strategy.yaml", folder.absolute() / "jobs"
    chain = links(directory, chain_folder) if jobs else ()
    for path in (target, folder / "adapter", chain_folder):
        if path.exists():
            raise ConfigurationError(f"{path} is there already", "choose another folder")
    make_folder(folder)
    with refusals("writing", folder), whole_folder(folder / "adapter") as copy:
        shutil.copytree(adapter, copy, dirs_exist_ok=True)
    write_bytes(target, document)
    typer.echo(f"wrote {target} and {folder / 'adapter'}")
    if chain:
        first = write_chain(chain, directory.record.config, chain_folder)[0]
        typer.echo(f"  next: `sh {shlex.quote(str(folder / 'jobs' / first))}` trains it anew")


def _watch(directory: SearchDirectory) -> None:
    from rich.console import Console

    from llmzero_hpc.cli.watching import following
    from llmzero_hpc.report.data import SearchState
    from llmzero_hpc.report.reading import read
    from llmzero_hpc.report.terminal import status_view

    console = Console()
    with following(directory, console) as look:
        while read(directory, metrics=()).state is not SearchState.FINISHED:
            time.sleep(1.0)
            look()
    console.print(status_view(read(directory)))


def _show_calls(directory: SearchDirectory, node: int, *, as_json: bool) -> None:
    from llmzero_hpc.report.calls import calls_about, calls_to_json
    from llmzero_hpc.report.reading import read

    data = read(directory, metrics=())
    calls = calls_about(directory, data.nodes[node])
    if as_json:
        _print_json(calls_to_json(data.nodes[node], calls))
    else:
        from llmzero_hpc.report.terminal_calls import calls_view

        _print(calls_view(data, data.nodes[node], calls))


def _print(view: RenderableType) -> None:
    from rich.console import Console

    # Not cropped: what does not fit is a path, and people copy those.
    Console().print(view, crop=False)


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")
