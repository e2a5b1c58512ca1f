"""Your own data: rows from JSONL or parquet files, scored by a Python file.

A row is in VeRL's shape (`prompt`, `reward_model.ground_truth`, `data_source`, `extra_info`) or simply
`{"prompt": ..., "answer": ...}`. A prompt is text, or chat messages (`{"role", "content"}`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llmzero_hpc.errors import ConfigurationError, MissingDependencyError
from llmzero_hpc.tasks.base import Row, Split, Task
from llmzero_hpc.tasks.reward_file import load_reward

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from llmzero_hpc.sections import FilesTask

_KEYS: Final = ("prompt", "answer", "reward_model", "data_source", "extra_info")
_SHAPE: Final = 'a row is {"prompt": ..., "answer": ...}, or VeRL\'s with reward_model.ground_truth'


@dataclass(frozen=True, slots=True)
class _Placed:
    """A row and where it stands, for messages: `train.jsonl line 3`."""

    row: Row
    place: str


class FilesDataset(Task):
    """Rows of the user's files; each file is read once, when its rows are first asked for.

    Raises:
        ConfigurationError: the reward file cannot be loaded.
    """

    def __init__(self, config: FilesTask) -> None:
        self._files = {Split.TRAIN: config.train, Split.VALIDATION: config.validation}
        if config.test is not None:
            self._files[Split.TEST] = config.test
        self._reward = load_reward(config.reward, config.reward_function)
        self._read: dict[Split, list[_Placed]] = {}

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that there are files for: the test is the user's choice."""
        return tuple(self._files)

    def rows(self, split: Split) -> Sequence[Row]:
        """The rows of a split's file, in its order.

        Raises:
            ConfigurationError: there is no such file, or something in it is wrong; the message names the row.
            MissingDependencyError: a parquet file without pyarrow.
        """
        if split not in self._files:
            raise ConfigurationError(f"task.{split}: no file is named", f"add `{split}:` to the task in search.yaml")
        if split not in self._read:
            self._read[split] = _read(self._files[split])
        return tuple(placed.row for placed in self._read[split])

    def reward(self, row: Row, response: str, *, truncated: bool) -> float:
        """The score that the user's function gives."""
        return self._reward.score(row, response, truncated=truncated, place=self.place)

    def place(self, row: Row) -> str:
        """Where a row of `rows` stands, for messages: `train.jsonl line 3`."""
        for placed in (placed for split in self._read.values() for placed in split):
            if placed.row is row:
                return placed.place
        return f"the row with the ground truth {row.ground_truth!r}"


def check_on_samples(task: Task, count: int = 3) -> None:
    """Read every split and try the reward, before a search spends anything on them.

    On `count` rows of train and of validation, spread over the split, the ground truth and an empty response are
    scored; their scores do not matter. The test's rows are read, not scored.

    Raises:
        ConfigurationError: a file is wrong, or the reward raised or returned no number.
    """
    for split in task.splits if isinstance(task, FilesDataset) else tuple(Split):
        rows = task.rows(split)
        if split is Split.TEST:
            continue
        chosen = sorted({index * (len(rows) - 1) // max(count - 1, 1) for index in range(count)})
        for row in (rows[index] for index in chosen):
            task.reward(row, row.ground_truth, truncated=False)
            task.reward(row, "", truncated=True)


def _read(path: Path) -> list[_Placed]:
    if path.suffix not in {".jsonl", ".parquet"}:
        raise ConfigurationError(f"{path}: neither .jsonl nor .parquet", "convert it to one of these; " + _SHAPE)
    if not path.is_file():
        raise ConfigurationError(f"{path}: the file is not there", "paths in search.yaml start from its own folder")
    try:
        found = _jsonl(path) if path.suffix == ".jsonl" else _parquet(path)
        rows = [_Placed(_row(data, place), place) for place, data in found]
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None
    if not rows:
        raise ConfigurationError(f"{path}: the file holds no rows", _SHAPE)
    return rows


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        wrong_line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path} line {wrong_line}: not UTF-8 text", "save the file as UTF-8") from None
    # Not splitlines: JSON strings may hold the other line separators that it cuts at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        try:
            yield place, json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise ConfigurationError(f"{place}: not JSON ({reason})", "each line is one JSON object") from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        raise MissingDependencyError(
            f"{path}: parquet files need pyarrow", "pip install 'llmzero-hpc[local]', or write the rows as JSONL"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in _KEYS]
            rows = file.read(columns=columns).to_pylist()
    except ArrowException as error:
        raise ConfigurationError(f"{path}: not a parquet file ({' '.join(str(error).split())})") from None
    for number, data in enumerate(rows, start=1):
        yield f"{path} row {number}", data


def _row(data: Any, place: str) -> Row:
    if not isinstance(data, dict):
        raise ConfigurationError(f"{place}: {_kind(data)} instead of an object", _SHAPE)
    source = data.get("data_source")
    if source is None:
        source = "default"
    if not isinstance(source, str) or not source:
        raise ConfigurationError(f"{place}: data_source is {_kind(source)} instead of a name")
    extra_info = data.get("extra_info")
    if extra_info is None:
        extra_info = {}
    if not isinstance(extra_info, dict):
        raise ConfigurationError(f"{place}: extra_info is {_kind(extra_info)} instead of an object")
    return Row(_prompt(data.get("prompt"), place), _ground_truth(data, place), source, extra_info)


def _prompt(value: Any, place: str) -> str | tuple[Mapping[str, str], ...]:
    if value is None:
        raise ConfigurationError(f"{place}: prompt is missing", _SHAPE)
    if isinstance(value, str):
        if not value.strip():
            raise ConfigurationError(f"{place}: prompt is empty")
        return value
    if not isinstance(value, list):
        raise ConfigurationError(f"{place}: prompt is {_kind(value)} instead of text or a list of messages")
    if not value:
        raise ConfigurationError(f"{place}: prompt is empty")
    for number, message in enumerate(value, start=1):
        for key in ("role", "content"):
            text = message.get(key) if isinstance(message, dict) else None
            if not isinstance(text, str):
                raise ConfigurationError(
                    f"{place}: message {number} of the prompt has no text under {key!r}",
                    'a message is {"role": "user", "content": "..."}',
                )
    return tuple({"role": message["role"], "content": message["content"]} for message in value)


def _ground_truth(data: dict[str, Any], place: str) -> str:
    key, value = "answer", data.get("answer")
    if data.get("reward_model") is not None:
        model = data["reward_model"]
        if not isinstance(model, dict):
            raise ConfigurationError(f"{place}: reward_model is {_kind(model)} instead of an object", _SHAPE)
        key, value = "reward_model.ground_truth", model.get("ground_truth")
    if value is None:
        raise ConfigurationError(f"{place}: {key} is missing", _SHAPE)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{place}: {key} is {_kind(value)} instead of text or a number",
            "store it as JSON text and decode it in the reward function",
        )
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    if value in ("", {}, []):
        return "empty"
    return "null" if value is None else names.get(type(value), type(value).__name__)
