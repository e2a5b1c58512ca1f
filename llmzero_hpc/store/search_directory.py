"""A search on disk: where everything lies, the frozen record, and the tree as the one truth."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmzero_hpc import __version__
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.errors import ConfigurationError, CorruptStateError, SearchNotFoundError
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.store.atomic import create_bytes, make_folder, read_bytes, refusals, write_bytes
from llmzero_hpc.store.metrics_log import read_series
from llmzero_hpc.store.migration import FORMAT_VERSION, upgraded
from llmzero_hpc.store.phase_directory import PhaseDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.search.metrics import Series

_SEARCH = "search.json"
_TREE = "tree.json"
_RESTORE = "restore it from a backup; this program replaces the file whole and never leaves it so"


class SearchRecord(BaseModel):
    """What is fixed when a search is created; the content of `search.json`.

    `token` makes the job names of searches with the same name differ; `created_at` is in seconds since the epoch;
    `train_rows` is the number of training rows, which fixes the steps of an epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_version: Literal[1] = FORMAT_VERSION
    token: str = Field(pattern=r"^[0-9a-f]{4}$")
    created_at: float
    train_rows: int = Field(ge=1)
    config: SearchConfig
    program_version: str = __version__

    @classmethod
    def new(cls, config: SearchConfig, train_rows: int, now: float) -> Self:
        """The record of a search that is being created, with a random token."""
        return cls(token=os.urandom(2).hex(), created_at=now, train_rows=train_rows, config=config)


class TreeDocument(BaseModel):
    """The content of `tree.json`; `search` is the token of the search that it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_version: Literal[1] = FORMAT_VERSION
    search: str
    tree: Tree


_Document = TypeVar("_Document", SearchRecord, TreeDocument)


class SearchDirectory:
    """The folder of one search. Reading needs no lease; only the holder of the lease writes the tree.

    Attributes:
        root: the folder itself, absolute: jobs run in other folders than the controller.
    """

    def __init__(self, root: Path, record: SearchRecord) -> None:
        """Use `create` or `open`."""
        self.root = root.absolute()
        self._record = record

    @classmethod
    def create(cls, root: Path, record: SearchRecord) -> SearchDirectory:
        """Make the folder of a new search; a kill leaves no search, which may be created again, or a whole one.

        Raises:
            ConfigurationError: the folder holds a search already.
            StorageError: the file system refused.
        """
        taken = ConfigurationError(f"{root} holds a search already", "choose another name, or remove the folder")
        make_folder(root)
        phases = root / "phases"
        with refusals("reading", root):
            if any((root / name).exists() for name in (_SEARCH, _TREE)) or (phases.is_dir() and any(phases.iterdir())):
                raise taken
        for name in ("phases", "evaluations", "control"):
            make_folder(root / name)
        if not create_bytes(root / _SEARCH, _encoded(record)):
            raise taken
        return cls(root, record)

    @classmethod
    def open(cls, root: Path) -> SearchDirectory:
        """The search in a folder.

        Raises:
            SearchNotFoundError: there is none.
            FormatVersionError: a newer version of this program wrote it.
            CorruptStateError: its record is not what this program wrote.
            StorageError: it cannot be read.
        """
        path = root / _SEARCH
        data = read_bytes(path) if root.is_dir() else None
        if data is None:
            raise SearchNotFoundError(
                f"{root} holds no search", "give the folder of a search, or create one with `llmzero-hpc run`"
            )
        return cls(root, _decoded(SearchRecord, path, data))

    @property
    def record(self) -> SearchRecord:
        """What was fixed at its creation."""
        return self._record

    @property
    def tree_file(self) -> Path:
        """`tree.json`."""
        return self.root / _TREE

    @property
    def metrics_h5(self) -> Path:
        """One HDF5 file that links to those of all phases."""
        return self.root / "metrics.h5"

    def read_tree(self) -> Tree:
        """The tree as last committed; an empty one before the first commit.

        Raises:
            FormatVersionError: a newer version of this program wrote it.
            CorruptStateError: it is torn, edited, or belongs to another search.
            StorageError: it cannot be read.
        """
        data = read_bytes(self.tree_file)
        if data is None:
            return Tree()
        document = _decoded(TreeDocument, self.tree_file, data)
        if document.search != self._record.token:
            raise CorruptStateError(
                f"{self.tree_file} belongs to search {document.search}, not to {self._record.token}",
                "two searches were mixed up by copying; restore the folder from a backup",
            )
        problem = _inconsistency(document.tree)
        if problem:
            raise CorruptStateError(f"{self.tree_file}: {problem}", _RESTORE)
        return document.tree

    def write_tree(self, tree: Tree, guard: Callable[[], None] | None = None) -> None:
        """Commit a tree: afterwards, and after a kill at any instant, the file holds the old or the new one.

        Controllers use `Lease.commit`, whose check is the `guard`: called right before the rename.

        Raises:
            ValueError: the tree could not be read back as it is (a bug); nothing was written.
            StorageError: the file system refused; the old tree stands.
        """
        data = _encoded(
            TreeDocument.model_construct(format_version=FORMAT_VERSION, search=self._record.token, tree=tree)
        )
        # A tree that cannot be read back, for a score of NaN, say, would end the search at the next start.
        problem = _inconsistency(tree)
        if problem or TreeDocument.model_validate_json(data, strict=True).tree != tree:
            raise ValueError(problem or "the tree changes when it is written and read")
        write_bytes(self.tree_file, data, guard=guard)

    def phase(self, node_id: int) -> PhaseDirectory:
        """The folder of a node's phase, there or not."""
        return PhaseDirectory(self.root / "phases" / f"{node_id:04d}")

    def evaluation(self, split: str, node: int, step: int) -> PhaseDirectory:
        """The folder in which the checkpoint of `node` after `step` is scored on a split; laid out like a phase."""
        return PhaseDirectory(self.root / "evaluations" / f"{split}_{node:04d}_{step}")

    def metrics(self, node_id: int, up_to: int | None = None) -> Series:
        """What a node's attempts reported, at most to the step `up_to` (inclusive); empty before the first row.

        Raises:
            StorageError: a file cannot be read.
        """
        series = read_series([attempt.metrics for attempt in self.phase(node_id).attempts()])
        return series if up_to is None else series.up_to(up_to)


def _encoded(document: BaseModel) -> bytes:
    return document.model_dump_json(indent=1).encode() + b"\n"


def _decoded(kind: type[_Document], path: Path, data: bytes) -> _Document:
    try:
        return kind.model_validate_json(data, strict=True)
    except ValidationError:
        document = _parsed(path, data)
    try:
        return kind.model_validate_json(json.dumps(upgraded(path, document)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        writer = document.get("program_version")
        hint = f"version {writer} wrote it, this is {__version__}" if writer not in {None, __version__} else _RESTORE
        raise CorruptStateError(f"{path}: {where}: {first['msg']}", hint) from None


def _parsed(path: Path, data: bytes) -> dict[str, object]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        what = "is empty" if not data.strip() else f"is torn or not JSON ({_one_line(str(error))})"
        raise CorruptStateError(f"{path} {what}", _RESTORE) from None
    if not isinstance(document, dict):
        raise CorruptStateError(f"{path} holds no JSON object", _RESTORE)
    return document


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _inconsistency(tree: Tree) -> str:
    """Why references in a tree lead nowhere or in circles; empty when they do not."""
    for place, node in enumerate(tree.nodes):
        if node.id != place:
            return f"node {node.id} stands at place {place}"
        resume = None if node.resume is None else node.resume.node
        for what, other in (("parent", node.parent), ("repairs", node.repairs), ("resume", resume)):
            if other is not None and not 0 <= other < node.id:
                return f"node {node.id}: {what} {other} is no earlier node"
    evaluated = tree.evaluation
    if evaluated is not None and not 0 <= evaluated.checkpoint.node < len(tree):
        return f"the evaluation is of node {evaluated.checkpoint.node}, which is not there"
    return ""
