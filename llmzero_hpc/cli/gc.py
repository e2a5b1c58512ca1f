"""`gc`: what takes space, and removing what nothing needs any more."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, SearchArgument, StateOption, locate
from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from llmzero_hpc.controller.housekeeping import Kind
    from llmzero_hpc.store.search_directory import SearchDirectory

_DRY = Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")]
_KEEP = Annotated[
    int, typer.Option("--keep-best", min=1, metavar="N", help="Keep the best checkpoints of the N best phases.")
]
_ONLY = Annotated[
    bool, typer.Option("--only-best", help="Of a finished search, keep no checkpoints but these and what led to them.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gc)


def gc(
    search: SearchArgument = None,
    state: StateOption = DEFAULT_STATE,
    dry_run: _DRY = False,
    keep_best: _KEEP = 1,
    only_best: _ONLY = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Free space: remove checkpoints that nothing can resume, and what finished phases needed to continue themselves.

    The best strategy and all that a phase may still resume from stay. Safe at any time, also while the search runs.
    """
    from llmzero_hpc.controller.housekeeping import removable, remove, usage

    directory = locate(search, state)
    if only_best and not _is_finished(directory):
        name = directory.record.config.name
        raise ConfigurationError(
            f"{name} is not finished, so its phases may still be resumed", f"`llmzero-hpc gc {name}` keeps those"
        )
    items = removable(directory, directory.read_tree(), best=keep_best, is_over=only_best, now=time.time())
    before = usage(directory.root)
    if not dry_run:
        remove(items)
    freed: dict[Kind, int] = dict.fromkeys(before, 0)
    for item in items:
        freed[item.kind] += item.size
    if as_json:
        _print_json(before, freed, [(str(item.path), item.kind, item.size) for item in items], dry_run=dry_run)
    else:
        _print_table(before, freed, dry_run=dry_run)


def _print_json(
    before: dict[Kind, int], freed: dict[Kind, int], items: list[tuple[str, Kind, int]], *, dry_run: bool
) -> None:
    document = {
        "removed": not dry_run,
        "bytes_by_kind": {kind.value: {"on_disk": size, "freed": freed[kind]} for kind, size in before.items()},
        "items": [{"path": path, "kind": kind.value, "bytes": size} for path, kind, size in items],
    }
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _print_table(before: dict[Kind, int], freed: dict[Kind, int], *, dry_run: bool) -> None:
    from llmzero_hpc.report import words

    did = "could go" if dry_run else "removed"
    typer.echo(f"{'':<18} {'on disk':>9} {did:>9}")
    for kind, size in before.items():
        typer.echo(
            f"{kind.value:<18} {words.size(size):>9} {words.size(freed[kind]) if freed[kind] else '':>9}".rstrip()
        )
    typer.echo(f"{'together':<18} {words.size(sum(before.values())):>9} {words.size(sum(freed.values())):>9}")


def _is_finished(directory: SearchDirectory) -> bool:
    from llmzero_hpc.report.data import SearchState
    from llmzero_hpc.report.reading import read

    return read(directory, metrics=()).state is SearchState.FINISHED
