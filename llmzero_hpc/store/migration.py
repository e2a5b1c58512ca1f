"""The format version of the state, and the way from older versions to this one.

Version 1 is the first, so the table is empty. A change of the format raises `FORMAT_VERSION` by one, appends one
function to `MIGRATIONS`, and adds files of the old version to the tests as fixtures. New keys with a default need no
new version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from llmzero_hpc.errors import CorruptStateError, FormatVersionError

if TYPE_CHECKING:
    from pathlib import Path

Document = dict[str, Any]
Migration = Callable[[str, Document], Document]
"""Takes a file's name (`search.json` or `tree.json`) and its content to the next version, `format_version` apart."""

FIRST_VERSION = 1
MIGRATIONS: tuple[Migration, ...] = ()
"""`MIGRATIONS[i]` takes version `FIRST_VERSION + i` to the next."""
FORMAT_VERSION: Final = 1


def upgraded(path: Path, document: Document, migrations: Sequence[Migration] = MIGRATIONS) -> Document:
    """A document of any known version in the form of the current one; the file itself is left alone.

    Raises:
        FormatVersionError: a newer version of this program wrote it.
        CorruptStateError: it has no version, or one that never was.
    """
    current = FIRST_VERSION + len(migrations)
    version = document.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < FIRST_VERSION:
        raise CorruptStateError(f"{path} has no valid format_version (found {version!r})", "restore it from a backup")
    if version > current:
        raise FormatVersionError(
            f"{path} has format version {version}; this program knows versions up to {current}",
            "upgrade llmzero-hpc, or use the version that wrote it",
        )
    for number, migrate in enumerate(migrations[version - FIRST_VERSION :], start=version + 1):
        document = {**migrate(path.name, document), "format_version": number}
    return document
