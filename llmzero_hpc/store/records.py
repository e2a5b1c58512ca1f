"""Small frozen records as JSON files: written whole, and read as None where they are not what was written."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from llmzero_hpc.store.atomic import json_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Record = TypeVar("_Record", bound="DataclassInstance")


def encoded(record: DataclassInstance) -> bytes:
    """A record as JSON."""
    return json_bytes(asdict(record))


def decoded(kind: type[_Record], data: bytes | None) -> _Record | None:
    """The record that was written, or None where `data` is absent, torn or anything else: strict in keys and types."""
    if data is None:
        return None
    try:
        holder: Any = _holder(kind).model_validate_json(b'{"record":' + data + b"}", strict=True)
    except ValidationError:
        return None
    record: _Record = holder.record
    return record


@cache
def _holder(kind: type[DataclassInstance]) -> type[BaseModel]:
    # Plain dataclasses take the strictness of the model that holds them.
    return create_model("Holder", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), record=(kind, ...))
