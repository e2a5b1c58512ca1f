"""Which search a command is about."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.errors import SearchNotFoundError

if TYPE_CHECKING:
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.store.search_directory import SearchDirectory

StateOption = Annotated[
    Path, typer.Option("--state", envvar="LLMZERO_STATE", help="Folder in which searches live.", show_default=True)
]
DEFAULT_STATE = Path("state")

SearchArgument = Annotated[
    str | None,
    typer.Argument(metavar="SEARCH", help="Name or folder of a search; may be left out when there is only one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NodeArgument = Annotated[int, typer.Argument(metavar="N", help="Number of the phase.", min=0)]


def locate(search: str | None, state: Path) -> SearchDirectory:
    """The search of that name or folder, or the only one there is.

    Its root is absolute: jobs run in folders of their own and are told paths below it.

    Raises:
        SearchNotFoundError: there is none of that name, or none at all, or several and none was named.
    """
    from llmzero_hpc.store.atomic import refusals
    from llmzero_hpc.store.search_directory import SearchDirectory

    with refusals("reading", state):
        found = sorted(path.parent for path in state.glob("*/search.json"))
    names = [path.name for path in found]
    if search is not None:
        folder = state / search
        if search not in names:
            with refusals("reading", Path(search)):
                there = Path(search).is_dir()
            if not there and not folder.exists():
                raise SearchNotFoundError(f"there is no search {search!r} in {state}", _advice(search, names))
            folder = Path(search) if there else folder
            if (folder / "search.yaml").exists() and not (folder / "search.json").exists():
                raise SearchNotFoundError(
                    f"{folder} holds no search, but a search.yaml",
                    f"start it: `llmzero-hpc run {folder / 'search.yaml'}`",
                )
        return SearchDirectory.open(folder.absolute())
    if len(found) == 1:
        return SearchDirectory.open(found[0].absolute())
    if not found:
        what = "is a file, not a folder of searches" if state.is_file() else "holds no search"
        raise SearchNotFoundError(f"{state} {what}", _advice("", names))
    raise SearchNotFoundError(f"{state} holds {len(found)} searches", f"say which one you mean: {', '.join(names)}")


def existing_node(directory: SearchDirectory, node: int) -> Node:
    """A node of the tree by its number.

    Raises:
        SearchNotFoundError: the tree has no such node.
    """
    nodes = directory.read_tree()
    if node < len(nodes):
        return nodes[node]
    name = directory.record.config.name
    if not len(nodes):
        raise SearchNotFoundError(
            f"there is no node {node}: {name} has no phase yet", f"`llmzero-hpc run {name}` starts the first"
        )
    raise SearchNotFoundError(
        f"there is no node {node}; {name} has "
        + ("node 0 only" if len(nodes) == 1 else f"nodes 0 to {len(nodes) - 1}"),
        f"`llmzero-hpc tree {name}` shows them",
    )


def _advice(search: str, names: list[str]) -> str:
    close = difflib.get_close_matches(search, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if names:
        return f"known: {', '.join(names)}; --state names another folder of searches"
    return "`llmzero-hpc demo` or `llmzero-hpc run search.yaml` makes one; --state names another folder of searches"
