"""Mistakes in a settings file, in words for people: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import re
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic_core import ErrorDetails

_REFERENCE = "docs/search-yaml.md lists every key with its type"
_LONGEST_VALUE = 60
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "model": "keys with values",
    "dict": "keys with values",
    "tuple": "a list",
    "dataclass": "keys with values",
    "mapping": "keys with values",
}
"""What is wanted, by the first word of pydantic's type of error."""
_LIMITS = {
    "greater_than_equal": ("ge", "is below"),
    "greater_than": ("gt", "is not above"),
    "less_than_equal": ("le", "is above"),
    "less_than": ("lt", "is not below"),
}


class Mistake(ValueError):  # noqa: N818 - no error of the program: it is raised in validators, for pydantic to carry
    """A mistake with the words for it; `next_step` says what to do about it."""

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


def closest(name: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown name, or else what there is."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def explained(errors: Sequence[ErrorDetails], section: Any, reference: str = _REFERENCE) -> tuple[str, str]:
    """The message and the next step for what pydantic found wrong with a model `section`; `reference` documents it."""
    # A mistyped key is unknown, and the one that was meant is missing: the former is the mistake.
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    where, beside = _place(error["loc"], section)
    if kind == "value_error":
        mistake = context["error"]
        known = isinstance(mistake, Mistake)
        return (str(mistake), mistake.next_step) if known else (f"{where}: {mistake}", reference)
    if kind in {"extra_forbidden", "unexpected_keyword_argument", "invalid_key"}:
        return f"unknown key {where!r}", closest(str(error["loc"][-1]), beside)
    if kind == "missing":
        return f"{where} is missing", reference
    if kind == "union_tag_not_found":
        return f"{where}.{_discriminator(context)} is missing", reference
    if kind in {"union_tag_invalid", "literal_error"}:
        return _no_choice(where, found, context)
    if kind == "string_pattern_mismatch":
        return (
            f"{where}: {_shown(found)} is no name",
            "a name has a-z, 0-9, - and _, begins with a letter or digit, and is at most 40 characters long",
        )
    if kind in _LIMITS:
        limit, words = _LIMITS[kind]
        return f"{where}: {_shown(found)} {words} {context[limit]}", reference
    expected = _EXPECTED.get(kind.partition("_")[0])
    if expected is None:
        return f"{where}: {error['msg']}: {_shown(found)}", reference
    return f"{where}: expected {expected}, found {_shown(found)}", reference


def _no_choice(where: str, found: object, context: dict[str, Any]) -> tuple[str, str]:
    if "tag" in context:
        where, found = f"{where}.{_discriminator(context)}", context["tag"]
    choices = context.get("expected") or context["expected_tags"]
    known = re.findall(r"'([^']*)'", choices) or re.findall(r"\d+", choices)
    return f"{where}: {_shown(found)} is unknown", closest(str(found), known)


def _discriminator(context: dict[str, Any]) -> str:
    """The key that chooses between sections."""
    return str(context["discriminator"]).strip("'")


def _shown(value: object) -> str:
    text = "nothing" if value is None else " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _place(location: tuple[int | str, ...], section: Any) -> tuple[str, list[str]]:
    """A place as the user wrote it, and the keys that are known there."""
    parts: list[str] = []
    beside: list[str] = []
    for part in location:
        variant = next((kind for kind in _variants(section) if _name_of(kind) == part), None)
        if variant is not None:  # pydantic names the variant of a union, which is no key of the user's
            section = variant
            continue
        fields = getattr(section, "model_fields", {})
        beside = list(fields or getattr(section, "__dataclass_fields__", {}))
        parts.append(str(part))
        if get_origin(section) is dict:
            section = get_args(section)[1]
        else:
            section = fields[part].annotation if part in fields else None
    return ".".join(parts), beside


def _variants(section: Any) -> tuple[Any, ...]:
    return get_args(section) if get_origin(section) in {Union, UnionType} else ()


def _name_of(kind: Any) -> Any:
    """What a section of several is chosen by: the one value of its `name` or `kind`."""
    fields = getattr(kind, "model_fields", {})
    return next((get_args(fields[key].annotation)[0] for key in ("name", "kind") if key in fields), None)
