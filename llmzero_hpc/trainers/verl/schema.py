"""VeRL's settings by name and type, as the pinned release has them; read from `schema.json`, without VeRL."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_FILE: Final = Path(__file__).with_name("schema.json")
"""Written by `make_schema`."""


@cache
def types() -> Mapping[str, frozenset[str]]:
    """Every setting with its types: `bool`, `int`, `float`, `str`, `null`, `list`."""
    found: dict[str, str] = json.loads(SCHEMA_FILE.read_bytes())["keys"]
    return MappingProxyType({key: frozenset(kinds.split("|")) for key, kinds in found.items()})


def release() -> str:
    """The release of VeRL that the schema describes."""
    version: str = json.loads(SCHEMA_FILE.read_bytes())["verl"]
    return version
