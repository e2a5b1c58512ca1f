"""Reading settings that people write in YAML: every problem is a `ConfigurationError` with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


class _Loader(yaml.SafeLoader):
    """YAML without its silent traps: of two equal keys the first would be lost, and 1:30 would be the number 90."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; a key that stands twice is an error."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float | str:
        """The number; text with colons stays text."""
        if ":" in node.value:
            return str(node.value)
        integer = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if integer else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def read_text(path: Path, next_step: str) -> str:
    """The text of a settings file; `next_step` says how to get one.

    Raises:
        ConfigurationError: it is not there, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is not there", next_step) from None
    except IsADirectoryError:
        raise ConfigurationError(f"{path} is a folder, not a file", next_step) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None


def parsed(text: str, source: str, next_step: str) -> dict[Any, Any]:
    """The settings in a text; `source` names it in messages, `next_step` says how to get one that works.

    Raises:
        ConfigurationError: it is not YAML, or no mapping.
    """
    try:
        data = yaml.load(text, _Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise ConfigurationError(f"{source}{where}: not valid YAML: {problem}") from None
    if data is None:
        raise ConfigurationError(f"{source} is empty", next_step)
    if not isinstance(data, dict):
        raise ConfigurationError(f"{source} holds no settings: it is no list of `key: value`", next_step)
    return data
