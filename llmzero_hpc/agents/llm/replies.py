"""The form of replies: what a model may say at all, as pydantic models and as the JSON schemas made from them.

Nothing in a reply is more than a number, a switch, a name from a list, a key, or one line of text for people to read.
The schemas keep to what servers enforce alike: lists and texts bounded, patterns rather than lengths of text, every
key required, nothing beside them, and no reference to follow.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    WithJsonSchema,
)

from llmzero_hpc.agents.llm.failures import UnusableReplyError
from llmzero_hpc.report.citations import Observation, Statistic
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST = 1e9
_LAST_STEP = 10_000_000
_MOST_CHARACTERS = 200_000
_MOST_PROBLEMS = 8
_OBJECT = re.compile(r"\{\s*[\"}]")
_THOUGHTS_BEGIN, _THOUGHTS_END = "<think>", "</think>"
_KEY = r"^[A-Za-z_][A-Za-z0-9_.]{0,99}$"
_WORD = r"^[A-Za-z0-9_.,\-]{1,100}$"
_METRIC = r"^[A-Za-z0-9_][A-Za-z0-9_./@ \-]{0,99}$"


def _one_line(limit: int) -> Callable[[Any], Any]:
    def clean(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        # What a terminal or a page would obey, not show, is no text.
        text = " ".join("".join(c if c.isprintable() else " " for c in value[: 8 * limit]).split())
        return text if len(text) <= limit else text[: limit - 3] + "..."

    return clean


def _line_form(hundreds: int) -> dict[str, str]:
    """Plain ASCII without quotes: what every server's grammar holds to. Other text is taken as well.

    By hundreds, as xgrammar 0.2.8 fails on more than 128 repetitions in a pattern; in this form there is one way only
    to read a text, so that no engine backtracks.
    """
    character = r"[ !#-\[\]-~]"
    return {"type": "string", "pattern": f"^({character}{{100}}){{0,{hundreds - 1}}}{character}{{0,100}}$"}


def _known(name: str) -> str:
    if name not in HYPERPARAMETERS:
        raise ValueError("not a hyperparameter")
    return name


def _checked(value: float | str) -> float | str:
    if isinstance(value, str):
        if not re.fullmatch(_WORD, value):
            raise ValueError("text here is one word of letters, digits and _ . , -")
    elif not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"a number here is between {-_LARGEST:g} and {_LARGEST:g}")
    return value


Sentence = Annotated[str, BeforeValidator(_one_line(300)), WithJsonSchema(_line_form(3))]
Paragraph = Annotated[str, BeforeValidator(_one_line(1200)), WithJsonSchema(_line_form(12))]
Step = Annotated[int, Strict(), Field(ge=0, le=_LAST_STEP)]
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, strict=True), WithJsonSchema({"type": "number"})]
"""Without limits in the schema: with them xgrammar knows neither exponents nor a seventh decimal, and 3e-07 is zero."""
Name = Annotated[str, Strict(), AfterValidator(_known), WithJsonSchema({"type": "string", "enum": [*HYPERPARAMETERS]})]
Value = Annotated[
    bool | int | float | str,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number"},
                {"type": "boolean"},
                {"type": "string", "pattern": _WORD},
            ]
        }
    ),
    AfterValidator(_checked),
]


class Part(BaseModel):
    """A reply or a part of one. Keys beyond those asked for are never looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, strict=True)


class Citation(Part):
    """One observation in the metrics."""

    metric: Annotated[str, Field(pattern=_METRIC)]
    first_step: Step
    last_step: Step
    statistic: Annotated[Statistic, Field(strict=False)]
    value: Number
    meaning: Sentence

    def observation(self) -> Observation:
        """As it is kept and checked."""
        return Observation(
            self.metric, self.first_step, self.last_step, self.statistic, float(self.value), self.meaning
        )


class Change(Part):
    """A hyperparameter and its new value."""

    name: Name
    value: Value
    why: Sentence


class Override(Part):
    """A key of the trainer beyond the table, and its new value; null takes it out again."""

    key: Annotated[str, Field(pattern=_KEY)]
    value: Value | None


class ProposerReply(Part):
    """Diagnosis, coordinated changes, the checkpoint, the budget (section 3.4)."""

    diagnosis: Paragraph
    observations: Annotated[tuple[Citation, ...], Field(strict=False, min_length=1, max_length=12)]
    changes: Annotated[tuple[Change, ...], Field(strict=False, max_length=len(HYPERPARAMETERS))]
    overrides: Annotated[tuple[Override, ...], Field(strict=False, max_length=16)]
    resume_step: Step | None
    epochs: Annotated[float, Field(gt=0, le=1000, strict=True)]


class ValidationPoint(Part):
    """A validation score of the phase that is judged."""

    step: Step
    score: Number


class EarlyStopperReply(Part):
    """The reason, the scores that it rests on, the decision (section 3.5)."""

    reason: Paragraph
    validation_scores: Annotated[tuple[ValidationPoint, ...], Field(strict=False, max_length=14)]
    decision: Literal["CONTINUE", "STOP"]


class ErrorAnalyzerReply(Part):
    """Whose fault a failure was, and what would repair it."""

    why: Paragraph
    verdict: Literal["infrastructure", "configuration"]
    changes: Annotated[tuple[Change, ...], Field(strict=False, max_length=len(HYPERPARAMETERS))]
    overrides: Annotated[tuple[Override, ...], Field(strict=False, max_length=16)]
    resume_step: Step | None


Reply = TypeVar("Reply", bound=Part)


def schema(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema that an endpoint is to enforce."""
    whole = kind.model_json_schema()
    plain = _plain(whole, whole.get("$defs", {}))
    plain.pop("$defs", None)
    assert isinstance(plain, dict)  # noqa: S101 - of a model
    return plain


def parsed(kind: type[Reply], text: str) -> Reply:
    """The reply in a model's text: the one JSON object in it, which has the right form.

    Raises:
        UnusableReplyError: there is none, there are several, or the form is wrong.
    """
    return checked(kind, only_object(text))


def checked(kind: type[Reply], found: dict[str, Any]) -> Reply:
    """An object of the right form.

    Raises:
        UnusableReplyError: it has another.
    """
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        problems = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in details[:_MOST_PROBLEMS]]
        raise UnusableReplyError(problems) from None
    except RecursionError:
        raise UnusableReplyError(["the reply is nested too deeply"]) from None


def _plain(part: Any, definitions: dict[str, Any]) -> Any:
    """Without references, titles and defaults; with every key required and no other allowed."""
    if isinstance(part, list):
        return [_plain(one, definitions) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _plain(definitions[part["$ref"].rpartition("/")[2]], definitions)
    if "properties" in part:
        properties = {name: _plain(value, definitions) for name, value in part["properties"].items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    return {
        key: _plain(value, definitions) for key, value in part.items() if key not in {"title", "default", "description"}
    }


def only_object(text: str) -> dict[str, Any]:
    """The one JSON object in a text; prose, fences and thoughts around it do no harm, a second object does.

    Raises:
        UnusableReplyError: there is none, or not one alone.
    """
    if len(text) > _MOST_CHARACTERS:
        raise UnusableReplyError([f"the reply is longer than {_MOST_CHARACTERS} characters"])
    said = text.rpartition(_THOUGHTS_END)[2]
    if _THOUGHTS_BEGIN in said:
        raise UnusableReplyError(["the reply ends before its thoughts do"])
    decoder = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_without_twins)
    found: list[dict[str, Any]] = []
    position = 0
    # A brace that begins no key is prose; one that does begins an object, and all of it must be there: what stands
    # inside a broken object was not said by itself.
    while (start := _OBJECT.search(said, position)) is not None:
        if found:
            raise UnusableReplyError(["there is more than one JSON object in the reply"])
        try:
            value, position = decoder.raw_decode(said, start.start())
        except (ValueError, RecursionError) as error:
            raise UnusableReplyError([f"the reply is no JSON: {str(error)[:200]}"]) from None
        found.append(value)
    if not found:
        raise UnusableReplyError(["there is no JSON object in the reply"])
    return found[0]


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two equal keys nobody knows which is meant."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
