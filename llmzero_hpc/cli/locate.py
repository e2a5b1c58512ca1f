"""Which search a command is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.errors import SearchNotFoundError

if TYPE_CHECKING:
    from llmzero_hpc.store.search_directory import SearchDirectory

StateOption = Annotated[
    Path, typer.Option("--state", envvar="LLMZERO_STATE", help="Folder in which searches live.", show_default=True)
]
DEFAULT_STATE = Path("state")

SearchArgument = Annotated[
    str | None,
    typer.Argument(metavar="[SEARCH]", help="Name or folder of a search; may be left out when there is only one."),
]


def locate(search: str | None, state: Path) -> SearchDirectory:
    """The search of that name or folder, or the only one there is.

    Raises:
        SearchNotFoundError: there is none, or several and none was named.
    """
    from llmzero_hpc.store.search_directory import SearchDirectory

    if search is not None:
        folder = state / search
        return SearchDirectory.open(folder if folder.is_dir() else Path(search))
    found = sorted(path.parent for path in state.glob("*/search.json"))
    if len(found) == 1:
        return SearchDirectory.open(found[0])
    if not found:
        raise SearchNotFoundError(f"there is no search in {state}", "`llmzero-hpc demo` or `llmzero-hpc run` makes one")
    names = ", ".join(path.name for path in found)
    raise SearchNotFoundError(f"there are several searches in {state}: {names}", "say which one you mean")
