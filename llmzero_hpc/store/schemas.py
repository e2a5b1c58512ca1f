"""JSON Schemas of files for other programs: `python -m llmzero_hpc.store.schemas` rewrites `state/schemas/`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.store.atomic import json_bytes, make_folder, write_bytes
from llmzero_hpc.store.search_directory import SearchRecord, TreeDocument
from llmzero_hpc.store.strategy_file import StrategyFile

if TYPE_CHECKING:
    from pydantic import BaseModel

DOCUMENTS: dict[str, type[BaseModel]] = {
    "search": SearchRecord,
    "tree": TreeDocument,
    "strategy": StrategyFile,
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, bytes]:
    """Every schema by its file's name, with its content."""
    return {
        f"{name}.schema.json": json_bytes({"$schema": _DIALECT, **kind.model_json_schema()})
        for name, kind in DOCUMENTS.items()
    }


def main(folder: Path) -> None:
    """Write all schemas to a folder."""
    make_folder(folder)
    for name, content in schemas().items():
        write_bytes(folder / name, content)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("state/schemas"))
