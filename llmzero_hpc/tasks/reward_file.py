"""The reward function in a Python file of the user's, with VeRL's signature."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from llmzero_hpc.tasks.base import Row

_SIGNATURE: Final = "(data_source, solution_str, ground_truth, extra_info=None)"
_LONGEST_MESSAGE: Final = 200


@dataclass(frozen=True, slots=True)
class RewardFile:
    """A loaded reward function; whatever goes wrong in it becomes a `ConfigurationError` of one line."""

    path: Path
    name: str
    function: Callable[..., Any]

    def score(self, row: Row, response: str, *, truncated: bool, place: Callable[[Row], str]) -> float:
        """What the function returns for a response, or its `score` when that is a dict.

        It is called with VeRL's keywords; `extra_info` is the row's with `truncated` added. `place` is asked
        in case of an error where the row stands.

        Raises:
            ConfigurationError: the function raised, or returned no finite number.
        """
        try:
            value = self.function(
                data_source=row.data_source,
                solution_str=response,
                ground_truth=row.ground_truth,
                extra_info={**row.extra_info, "truncated": truncated},
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
            raise ConfigurationError(
                f"{self._in_file(error)}: {self.name} raised {_describe(error)} on {place(row)}",
                f"it is called as {self.name}{_SIGNATURE}, with keywords; it must score any response, an empty one too",
            ) from None
        if isinstance(value, Mapping):
            if "score" not in value:
                raise self._no_number(
                    f"a dict without 'score' (keys: {', '.join(map(str, value)) or 'none'})", place(row)
                )
            value = value["score"]
        try:
            # Text is turned away although float("1") works: a reward that returns text is a mistake.
            number = float(value) if hasattr(type(value), "__float__") else None
        except (TypeError, ValueError, OverflowError, RuntimeError):  # arrays and tensors of several numbers
            number = None
        if number is None:
            raise self._no_number(f"{_shorten(repr(value))} ({type(value).__name__})", place(row))
        if not math.isfinite(number):
            raise self._no_number(f"{number}", place(row))
        return number

    def _in_file(self, error: BaseException) -> str:
        return _with_line(self.path, error)

    def _no_number(self, found: str, place: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path}: {self.name} returned {found} on {place}", "return a finite number, or a dict with 'score'"
        )


def load_reward(path: Path, function_name: str) -> RewardFile:
    """The function `function_name` of the Python file `path`, which is executed for it.

    Raises:
        ConfigurationError: the file is not there, does not import, or has no such function.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"{path}: the reward file is not there", f"write one with {function_name}{_SIGNATURE} in it"
        )
    # A name of its own for each file, registered as the import system would: dataclasses look their module up.
    module_name = f"llmzero_reward_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path}: not a Python file", "the reward file's name must end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        del sys.modules[module_name]
        raise ConfigurationError(
            f"{_with_line(path, error)}: the reward file does not import: {_describe(error)}",
            f"try `python {path}` in this environment",
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        own = sorted(name for name, value in vars(module).items() if getattr(value, "__module__", "") == module_name)
        raise ConfigurationError(
            f"{path}: there is no function {function_name!r}" + (f"; it has {', '.join(own)}" if own else ""),
            "name it in task.reward_function",
        )
    return RewardFile(path, function_name, function)


def _with_line(path: Path, error: BaseException) -> str:
    """The file, with the line in it that the error passed last, where it passed one."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path} line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path} line {lines[-1]}" if lines else str(path)


def _describe(error: BaseException) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {_shorten(message)}" if message else type(error).__name__


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 3] + "..."
