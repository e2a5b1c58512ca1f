"""Writes the pages that follow from the code: `python docs/generate.py`. A test compares them with the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import os
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from typer.testing import CliRunner

from llmzero_hpc import errors
from llmzero_hpc.agents.playbook.document import page as playbook_page
from llmzero_hpc.baselines.document import page as methods_page
from llmzero_hpc.cli.main import INTERRUPTED, USAGE, app
from llmzero_hpc.cluster.profile import OWN_OPTIONS, REFUSED_OPTIONS, ClusterProfile
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.method_sections import METHODS
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, ParameterClass
from llmzero_hpc.sections import (
    ChainsTask,
    FilesTask,
    LanguageModelAgents,
    LocalClusterConfig,
    PlaybookAgents,
    Prices,
    Serve,
    SlurmClusterConfig,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typer.models import CommandInfo

FOLDER = Path(__file__).parent
_WIDTH = 100
_GENERATED = "<!-- Written by docs/generate.py (`make docs`): change the code instead. -->\n\n"
_TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path", NoneType: "none"}
_CHOICES: dict[str, tuple[str, tuple[type[BaseModel], ...]]] = {
    "task": ("name", (ChainsTask, FilesTask)),
    "agents": ("kind", (PlaybookAgents, LanguageModelAgents)),
    "cluster": ("kind", (LocalClusterConfig, SlurmClusterConfig)),
    "method": ("kind", METHODS),
}
"""Sections that are one of several, and the key that says which."""
_INSIDE: dict[type[BaseModel], dict[str, type[BaseModel]]] = {LanguageModelAgents: {"serve": Serve, "prices": Prices}}
"""Sections inside of sections, by their key."""
_LIMITS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    own = {
        "cli.md": _commands(),
        "search-yaml.md": _settings(),
        "cluster-profiles.md": _profiles(),
        "exit-codes.md": _exit_codes(),
        "hyperparameters.md": _hyperparameters(),
    }
    return {name: _GENERATED + text for name, text in own.items()} | {
        "playbook.md": playbook_page(),
        "methods.md": methods_page(),
    }


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


_COMMANDS_HEAD = """\
# Commands

What `--help` prints. The name of a search may be left out where the state folder holds only one;
the variable `LLMZERO_STATE` names another state folder. [Exit codes](exit-codes.md).

"""


def _commands() -> str:
    names = [(_name(command),) for command in app.registered_commands]
    for group in app.registered_groups:
        inside = group.typer_instance.registered_commands if group.typer_instance else []
        names += [(str(group.name), _name(command)) for command in inside]
    return _COMMANDS_HEAD + _help() + "".join(f"\n## {' '.join(name)}\n\n{_help(*name)}" for name in names)


def _name(command: CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "")


def _help(*command: str) -> str:
    plain = {"TERM": "dumb", "NO_COLOR": "1", "LLMZERO_STATE": None}
    result = CliRunner().invoke(
        app,
        [*command, "--help"],
        prog_name="llmzero-hpc",
        env=plain,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
    )
    if result.exit_code:
        raise RuntimeError(result.output)
    lines = [line.rstrip() for line in result.output.strip().splitlines()]
    return "```\n" + "\n".join(lines) + "\n```\n"


_SETTINGS_HEAD = """\
# search.yaml

Every key with its type, its default and its meaning. A key without a default must be there; one that is not listed is
refused, as is one that stands twice. `llmzero-hpc init FOLDER` writes a file to start from, and
`llmzero-hpc run search.yaml --dry-run` checks one without starting anything.
"""
_CONFIGURATION_HEAD = """
## configuration

What node 0 trains with. Limits and meaning of each: [hyperparameters.md](hyperparameters.md).

"""


def _settings() -> str:
    parts = [_SETTINGS_HEAD, "\n", _keys(SearchConfig)]
    for name, field in SearchConfig.model_fields.items():
        if name in _CHOICES:
            key, kinds = _CHOICES[name]
            parts.append(f"\n## {name}\n\nOne of these, by its `{key}`.\n")
            for kind in kinds:
                parts.append(f"\n### {_chosen_by(kind, key)}\n\n{_said(kind)}\n\n{_keys(kind)}")
                parts += [
                    f"\n#### {inside}\n\n{_said(section)}\n\n{_keys(section)}"
                    for inside, section in _INSIDE.get(kind, {}).items()
                ]
        elif name == "configuration":
            parts += [_CONFIGURATION_HEAD, _table(("key", "type", "default"), _configuration())]
        elif name == "bounds":
            parts.append(
                f"\n## bounds\n\nA hyperparameter that is a number, with `low` and `high`. {_said(Bounds)}\n\n"
            )
            parts.append(_keys(Bounds))
        elif _is_section(field.annotation):
            parts.append(f"\n## {name}\n\n{_said(field.annotation)}\n\n{_keys(field.annotation)}")
    return "".join(parts)


def _chosen_by(kind: type[BaseModel], key: str) -> str:
    return str(get_args(kind.model_fields[key].annotation)[0])


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def _said(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _configuration() -> list[tuple[str, ...]]:
    start = Configuration()
    rows = [(f"`{row.name}`", _TYPES[row.kind], _default(start.value(row.name))) for row in HYPERPARAMETERS.values()]
    return [*rows, ("`overrides`", "keys of the trainer with values", "`{}`")]


def _keys(kind: Any) -> str:
    meanings = _meanings(kind)
    hints = get_type_hints(kind, include_extras=True)
    if issubclass(kind, BaseModel):
        defaults = {name: None if field.is_required() else field.default for name, field in kind.model_fields.items()}
        required = {name for name, field in kind.model_fields.items() if field.is_required()}
    else:
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        required = set()
    return _table(
        ("key", "type", "default", "meaning"),
        (
            (
                f"`{name}`",
                _type(hints[name]),
                "" if name in required else _default(value),
                meanings.get(name, ""),
            )
            for name, value in defaults.items()
        ),
    )


def _meanings(kind: Any) -> dict[str, str]:
    """The texts that stand below the fields of a class."""
    found = {}
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != errors.__name__.partition(".")[0]:
            continue
        body = next(part for part in ast.parse(inspect.getsource(base)).body if isinstance(part, ast.ClassDef)).body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found.setdefault(field.target.id, " ".join(str(ast.literal_eval(text.value)).split()))
    return found


def _type(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [
            f"{words} {getattr(mark, key)}"
            for mark in _marks(arguments[1:])
            for limit, (key, words) in _LIMITS.items()
            if isinstance(mark, limit)
        ]
        return ", ".join([_type(arguments[0]), *limits])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in {Union, UnionType}:
        parts = [_type(part) for part in arguments]
        return "section below" if _is_section(arguments[0]) else (", or " if "," in parts[0] else " or ").join(parts)
    if origin is dict:
        return "keys with values"
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    return _TYPES.get(hint, "section below")


def _marks(marks: Iterable[Any]) -> Iterable[Any]:
    for mark in marks:
        yield from getattr(mark, "metadata", ())


def _default(value: Any) -> str:
    if _is_section(type(value)):
        return "as below"
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == ():
        return "`[]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


_PROFILES_HEAD = """\
# Cluster profiles

A cluster profile says how jobs are asked for on one cluster, once for all searches: a YAML file of profiles by their
names. `cluster.profile` in [search.yaml](search-yaml.md) chooses one, `cluster.profiles` names the file; without it
that is the one in the variable `LLMZERO_PROFILES`, or `~/.config/llmzero-hpc/profiles.yaml`. Relative paths are taken
from the file's folder. A search takes its machines, GPUs and threads from its profile.

`llmzero-hpc init --slurm FOLDER` writes one to start from. `llmzero-hpc doctor --profile NAME` proves one: it asks
Slurm whether it would take such a job, runs a small one, and says what to change. `llmzero-hpc run search.yaml
--dry-run` shows the whole script. What the script does before it starts Python is in `slurm_templates/job_setup.sh`,
which `cluster.templates` may replace.

## Options

Every option may be left out, and is then not passed to sbatch. Values are data: none of them can leave its place in
the script. Only `setup` is shell, one line an entry, run as it stands.

"""
_SBATCH_HEAD = """
### What `sbatch_options` refuses

Options that a profile has a name of its own for, and those that the controller needs to find, repeat and end its jobs.

"""
_EXAMPLES_HEAD = """
## Examples

```yaml
"""


def _profiles() -> str:
    options = [*((name, f"use {own}") for name, own in OWN_OPTIONS.items()), *REFUSED_OPTIONS.items()]
    refused = _table(("option", "why"), ((f"`{name}`", why) for name, why in sorted(options)))
    examples = (FOLDER / "data" / "cluster-profiles.yaml").read_text(encoding="utf-8")
    return _PROFILES_HEAD + _keys(ClusterProfile) + _SBATCH_HEAD + refused + _EXAMPLES_HEAD + examples + "```\n"


def _exit_codes() -> str:
    classes = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LLMZeroError)
    ]
    known = {
        0: "All is well. Also when `run` was stopped by Ctrl-C, SIGTERM or `llmzero-hpc stop`: its phases go on.",
        1: "A bug in this program, with a traceback; or whoever read the output (`| head`) has gone.",
        USAGE: "The command line cannot be understood.",
        INTERRUPTED: "Ctrl-C ended a command; it stops the controller of `run` in order instead, with 0.",
    }
    known |= {kind.exit_code: _said(kind) for kind in classes if kind is not errors.LLMZeroError}
    head = (
        "# Exit codes\n\nWhat goes wrong is told on standard error in one line, `error: ...`, "
        "and often a second, `next: ...`.\n\n"
    )
    transient = " and ".join(map(str, sorted(errors.INFRASTRUCTURE_EXIT_CODES)))
    of_phases = (
        ("0", "The last step is validated."),
        (transient, "The infrastructure failed it: a disk, a machine, the network, a process that was killed."),
        (str(os.EX_UNAVAILABLE), "So it did before the start: Ray did not come up on all machines."),
        ("128 and a signal", "Somebody ended the job."),
        ("any other", "The phase's own failure, for the error analyzer to repair."),
    )
    phases = (
        "\n## Of a phase's job\n\nA trainer's command ends with the same codes, "
        "after a line `error: ...` that `show N` repeats.\n\n" + _table(("code", "meaning"), of_phases) + "\n"
        "What the infrastructure failed is tried again, from the phase's newest complete checkpoint: after a pause of\n"
        "two ticks, and of twice as long after each further time in a row, up to half an hour. After `max_attempts`\n"
        "in a row without a new checkpoint the phase has failed, and says why.\n"
    )
    return head + _table(("code", "meaning"), ((str(code), text) for code, text in sorted(known.items()))) + phases


_CLASSES = {
    ParameterClass.CAPACITY: "accumulates: lowering it discards what earlier phases built",
    ParameterClass.REGULARIZATION: "moves both ways, with the balance of exploration and exploitation",
    ParameterClass.OTHER: "changes freely",
    ParameterClass.FIXED: "the same along a strategy, as the adapter's shape depends on it",
}


def _hyperparameters() -> str:
    rows = (
        (
            f"`{row.name}`",
            row.parameter_class.value,
            _TYPES[row.kind] + ("" if row.low is None or row.high is None else f", {row.low:g} to {row.high:g}"),
            row.meaning,
            ", ".join(f"`{key}`" for key in row.verl_keys),
            f"`{row.trl_argument}`",
        )
        for row in HYPERPARAMETERS.values()
    )
    return (
        "# Hyperparameters\n\nWhat may change from phase to phase. `bounds` in search.yaml narrows the limits.\n\n"
        + _table(("class", "in a strategy"), ((kind.value, words) for kind, words in _CLASSES.items()))
        + "\n"
        + _table(("name", "class", "type and limits", "meaning", "VeRL", "TRL"), rows)
        + "\n`mini_batches` also requires that it divides `batch_size`.\n"
    )


def main() -> None:
    """Write all pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
