"""What a model is asked: system text, user text and images, rendered from the templates in `prompts/`."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, assert_never, get_args

from llmzero_hpc import shipped
from llmzero_hpc.agents.base import FailureRequest, ProposalRequest, StopRequest
from llmzero_hpc.agents.llm import facts, plots
from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jinja2 import Environment, TemplateSyntaxError

AgentName = Literal["proposer", "early_stopper", "error_analyzer"]
"""Who is asked; also the folder of its templates."""
AGENTS: tuple[AgentName, ...] = get_args(AgentName)

_VARIABLES = "prompts/README.md lists what each template may write"


@dataclass(frozen=True, slots=True)
class Image:
    """A picture for a model that sees. `name` is a file name (`curves_1.png`), `png` its bytes."""

    name: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything that one call sends, images last and in the order in which the user text names them."""

    system: str
    user: str
    images: tuple[Image, ...] = ()

    @property
    def estimated_tokens(self) -> int:
        """Upper estimate for both texts, without a tokenizer: see `estimated_tokens`."""
        return estimated_tokens(self.system) + estimated_tokens(self.user)


def estimated_tokens(text: str) -> int:
    """Tokens of a text, rather too many than too few: a letter group of up to four, a digit or a sign each count one.

    Tokenizers differ; those that split numbers into digits are the dearest for tables.
    """
    return len(re.findall(r"[^\W\d_]{1,4}|\d|[^\w\s]|_|\n", text))


def render(
    agent: AgentName,
    request: ProposalRequest | StopRequest | FailureRequest,
    *,
    vision: bool = True,
    own: Path | None = None,
    reply_format: str = "",
) -> Prompt:
    """The prompt of an agent for a request; the same request gives the same prompt to the byte.

    Args:
        agent: who is asked.
        request: what about, of the agent's own kind.
        vision: draw pictures, in a process of their own; without, `images` is empty and the text does not speak of any.
            A drawing that fails is done without: the tables say what it would have shown.
        own: a folder with the user's versions of templates; each file in it replaces the shipped one of its name.
        reply_format: the JSON Schema of the reply, for endpoints that do not enforce it; empty leaves it out.

    Raises:
        ConfigurationError: a template cannot be rendered; the message says which, where and why.
        MissingDependencyError: matplotlib is not installed and `vision` is asked for.
    """
    order = _order(request) if vision else None
    try:
        drawn = plots.draw(order) if order else ()
    except (ChildProcessError, subprocess.TimeoutExpired):
        order, drawn = None, ()
    pictures = order.pictures if order else ()
    known = variables(request, pictures) | {"reply_format": reply_format}
    environment = _environment(own)
    system, user = (_rendered(environment, f"{agent}/{part}.md", known) for part in ("system", "user"))
    return Prompt(system, user, tuple(Image(picture.name, png) for picture, png in zip(pictures, drawn, strict=True)))


def variables(
    request: ProposalRequest | StopRequest | FailureRequest, pictures: tuple[plots.Picture, ...] = ()
) -> dict[str, Any]:
    """What the templates of the request's agent may write, besides `reply_format`."""
    match request:
        case ProposalRequest():
            return facts.of_proposal(request, pictures)
        case StopRequest():
            return facts.of_stop(request, pictures)
        case FailureRequest():
            return facts.of_failure(request, pictures)
        case _:
            assert_never(request)


def text(template: str, known: dict[str, Any], own: Path | None = None) -> str:
    """One text that is not a whole prompt: part of a conversation.

    Raises:
        ConfigurationError: the template cannot be rendered.
    """
    return _rendered(_environment(own), template, known)


def names_written(template: str, own: Path | None) -> set[str]:
    """The variables that a template writes, in any branch; those of included files are not among them.

    Raises:
        ConfigurationError: there is no such template, or it cannot be parsed.
    """
    from jinja2 import TemplateSyntaxError, meta

    environment = _environment(own)
    path = shipped.path("prompts", template, own)
    try:
        return meta.find_undeclared_variables(environment.parse(_read(path), filename=str(path)))
    except TemplateSyntaxError as error:
        raise _mistake(error, template) from None


def _environment(own: Path | None) -> Environment:
    """Where templates come from and how they are written: a name that means nothing is an error, never a gap."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def load(name: str) -> tuple[str, str, Callable[[], bool]]:
        path = shipped.path("prompts", name, own)
        return _read(path), str(path), lambda: True

    return Environment(
        loader=FunctionLoader(load),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown for a model, no page for a browser
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", "save it as UTF-8 text") from None


def _mistake(error: TemplateSyntaxError, name: str) -> ConfigurationError:
    return ConfigurationError(f"{error.filename or name} line {error.lineno}: {error.message}", _VARIABLES)


def _order(request: ProposalRequest | StopRequest | FailureRequest) -> plots.Order | None:
    match request:
        case ProposalRequest():
            return plots.curves(request)
        case StopRequest():
            return plots.overlay(request)
        case _:
            return None


def _rendered(environment: Environment, name: str, known: dict[str, Any]) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        text = environment.get_template(name).render(known)
    except TemplateSyntaxError as error:
        raise _mistake(error, name) from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ConfigurationError(f"{_place(error, name)}: {error}", _VARIABLES) from None
    # Conditions leave empty lines behind; two in a row say nothing to a model.
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _place(error: Exception, name: str) -> str:
    """File and line of a template in which an expression failed: the innermost one on the way."""
    place, trace = name, error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.endswith(".md"):
            place = f"{file} line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
