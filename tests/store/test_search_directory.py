"""The tree on disk is the old one, the new one, or refused with a clear line: never anything else."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kills import at_once, killed_at_every_step
from store_samples import names, new_search, record, rich_tree, small_tree

from llmzero_hpc.errors import (
    ConfigurationError,
    CorruptStateError,
    FormatVersionError,
    LLMZeroError,
    SearchNotFoundError,
    StorageError,
)
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.metrics import MetricRow
from llmzero_hpc.search.node import Checkpoint, CheckpointReference
from llmzero_hpc.search.tree import Evaluation, Tree
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from disks import SmallDisk


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_what_is_written_is_read(directory: SearchDirectory) -> None:
    directory.write_tree(rich_tree())
    opened = SearchDirectory.open(directory.root)
    assert opened.record == directory.record
    tree = opened.read_tree()
    assert tree == rich_tree()
    types = {key: type(value) for key, value in tree[0].configuration.overrides.items()}  # type: ignore[union-attr]
    assert types == {"flag": bool, "whole": int, "real": float, "word": str}


@given(
    score=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(max_size=20),
    value=st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
)
def test_any_value_of_a_tree_survives(
    tmp_path_factory: pytest.TempPathFactory, score: float, text: str, value: Any
) -> None:
    directory = new_search(tmp_path_factory.mktemp("any") / "search")
    node = replace(
        small_tree()[0],
        problem=text,
        checkpoints=(Checkpoint(1, score),),
        configuration=Configuration(overrides={text: value}),
    )
    try:
        directory.write_tree(Tree((node,)))
    except UnicodeEncodeError:
        pytest.fail("text that cannot be written")
    found = directory.read_tree()[0]
    assert found == node
    assert type(found.configuration.overrides[text]) is type(value)  # type: ignore[union-attr]


def test_before_the_first_commit_the_tree_is_empty(directory: SearchDirectory) -> None:
    assert directory.read_tree() == Tree()


def test_a_kill_at_any_step_of_a_commit_leaves_the_old_or_the_new_tree(directory: SearchDirectory) -> None:
    old, new = small_tree(1), rich_tree()
    seen = []
    for step in killed_at_every_step(lambda: directory.write_tree(old), lambda: directory.write_tree(new)):
        found = SearchDirectory.open(directory.root).read_tree()
        assert found in (old, new), step
        seen.append(found)
    assert len(seen) >= 15
    assert old in seen
    assert new in seen
    assert {name for name in names(directory.root) if name.startswith(".tmp-")}, "the kills left nothing behind?"
    directory.write_tree(small_tree(3))
    assert SearchDirectory.open(directory.root).read_tree() == small_tree(3)


def test_a_kill_at_any_step_of_a_creation_leaves_no_search_or_a_whole_one(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "search"
    fixed = record()
    created = []
    for step in killed_at_every_step(
        lambda: shutil.rmtree(tmp_path / "deep", ignore_errors=True), lambda: SearchDirectory.create(root, fixed)
    ):
        try:
            found = SearchDirectory.open(root)
        except SearchNotFoundError:
            created.append(False)
            found = SearchDirectory.create(root, fixed)
        else:
            created.append(True)
        assert found.record == fixed, step
        found.write_tree(rich_tree())
        assert found.read_tree() == rich_tree()
    assert len(created) >= 20
    assert {True, False} == set(created)


@pytest.mark.parametrize("name", ["search.json", "tree.json"])
def test_every_torn_length_is_refused(directory: SearchDirectory, name: str) -> None:
    # The last character of an object is its closing brace, so no shorter text is JSON; only the newline may be lost.
    directory.write_tree(rich_tree())
    path = directory.root / name
    whole = path.read_bytes()
    assert whole.endswith(b"}\n")
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptStateError) as caught:
            SearchDirectory.open(directory.root).read_tree()
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.next_step
    path.write_bytes(whole[:-1])
    assert SearchDirectory.open(directory.root).read_tree() == rich_tree()


@pytest.mark.parametrize("name", ["search.json", "tree.json"])
@pytest.mark.parametrize("content", [bytes(4096), b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"tree": 1}'])
def test_what_is_no_document_is_refused(directory: SearchDirectory, name: str, content: bytes) -> None:
    (directory.root / name).write_bytes(content)
    with pytest.raises(CorruptStateError, match=name):
        SearchDirectory.open(directory.root).read_tree()


def test_a_torn_block_in_the_middle_is_refused_or_harmless(directory: SearchDirectory) -> None:
    directory.write_tree(rich_tree())
    whole = directory.tree_file.read_bytes()
    for start in range(0, len(whole), 64):
        directory.tree_file.write_bytes(whole[:start] + bytes(64) + whole[start + 64 :])
        with pytest.raises(CorruptStateError):
            directory.read_tree()


@pytest.mark.parametrize("name", ["search.json", "tree.json"])
def test_a_newer_format_is_refused_in_one_line_whatever_else_it_holds(directory: SearchDirectory, name: str) -> None:
    directory.write_tree(rich_tree())
    edited(directory.root / name, lambda document: document.update(format_version=2, novelty={"x": 1}))
    with pytest.raises(FormatVersionError, match=rf"{name} has format version 2; this program knows versions up to 1"):
        SearchDirectory.open(directory.root).read_tree()


@pytest.mark.parametrize("version", [0, -1, "1", None, 1.5])
def test_a_version_that_never_was_is_refused(directory: SearchDirectory, version: object) -> None:
    edited(directory.root / "search.json", lambda document: document.update(format_version=version))
    with pytest.raises(CorruptStateError, match="format_version"):
        SearchDirectory.open(directory.root)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(more=1),
        lambda document: document["tree"].update(more=1),
        lambda document: document["tree"]["nodes"][0].update(more=1),
        lambda document: document["tree"]["nodes"][0]["configuration"].update(more=1),
        lambda document: document["tree"]["nodes"][0]["attempts"][0]["job"].update(more=1),
        lambda document: document["tree"]["nodes"][0].update(status="done"),
        lambda document: document["tree"]["nodes"][0].update(seed="7"),
        lambda document: document["tree"]["nodes"][0].pop("seed"),
        lambda document: document["tree"]["nodes"][0]["checkpoints"][0].update(score=float("nan")),
        lambda document: document["tree"]["nodes"].reverse(),
        lambda document: document["tree"]["nodes"].pop(0),
        lambda document: document["tree"]["nodes"][1].update(parent=1),
        lambda document: document["tree"]["nodes"][0].update(parent=1),
        lambda document: document["tree"]["nodes"][1].update(repairs=5),
        lambda document: document["tree"]["nodes"][1]["resume"].update(node=-1),
        lambda document: document["tree"]["evaluation"]["checkpoint"].update(node=2),
        lambda document: document.update(search="0"),
    ],
)
def test_an_edited_tree_is_refused(directory: SearchDirectory, change: Callable[[dict[str, Any]], object]) -> None:
    directory.write_tree(rich_tree())
    edited(directory.tree_file, change)
    with pytest.raises(CorruptStateError, match=r"tree\.json"):
        directory.read_tree()


def test_the_tree_of_another_search_is_refused(directory: SearchDirectory, tmp_path: Path) -> None:
    other = new_search(tmp_path / "other")
    while other.record.token == directory.record.token:
        other = new_search(tmp_path / f"other{other.record.token}")
    other.write_tree(rich_tree())
    shutil.copy(other.tree_file, directory.tree_file)
    with pytest.raises(CorruptStateError, match=f"belongs to search {other.record.token}"):
        directory.read_tree()


def test_an_unknown_key_of_a_record_names_the_version_that_wrote_it(directory: SearchDirectory) -> None:
    edited(directory.root / "search.json", lambda document: document.update(program_version="9.9", more=1))
    with pytest.raises(CorruptStateError) as caught:
        SearchDirectory.open(directory.root)
    assert "9.9" in caught.value.next_step


def test_a_tree_that_could_not_be_read_back_is_never_committed(directory: SearchDirectory) -> None:
    directory.write_tree(small_tree())
    node = small_tree()[0]
    bad = [
        Tree((replace(node, checkpoints=(Checkpoint(1, float("nan")),)),)),
        Tree((replace(node, checkpoints=(Checkpoint(1, float("inf")),)),)),
        Tree((replace(node, id=1),)),
        Tree((replace(node, resume=CheckpointReference(3, 1)),)),
        Tree((), Evaluation(CheckpointReference(0, 1), "test")),
    ]
    for tree in bad:
        with pytest.raises(ValueError, match=r"valid number|stands at|no earlier node|not there"):
            directory.write_tree(tree)
        assert directory.read_tree() == small_tree()


def test_a_folder_takes_one_search(directory: SearchDirectory, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds a search already"):
        new_search(directory.root)
    (directory.root / "search.json").unlink()
    directory.write_tree(rich_tree())
    with pytest.raises(ConfigurationError, match="holds a search already"):
        new_search(directory.root)

    def create() -> None:
        try:
            new_search(tmp_path / "race")
        except ConfigurationError:
            os._exit(3)

    assert sorted(at_once([create] * 8)) == [0] + [3] * 7


def test_where_no_search_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(SearchNotFoundError, match="holds no search"):
            SearchDirectory.open(path)
    with pytest.raises(LLMZeroError):
        new_search(tmp_path / "file")


def test_a_full_disk_stops_a_commit_and_nothing_else(small_disk: SmallDisk) -> None:
    directory = new_search(small_disk.folder / "search")
    directory.write_tree(small_tree())
    with small_disk.full():
        with pytest.raises(StorageError, match=small_disk.full_words):
            directory.write_tree(rich_tree())
        with pytest.raises(StorageError, match=small_disk.full_words):
            new_search(small_disk.folder / "other")
        assert SearchDirectory.open(directory.root).read_tree() == small_tree()
    directory.write_tree(rich_tree())
    assert directory.read_tree() == rich_tree()
    assert new_search(small_disk.folder / "other").read_tree() == Tree()


def test_a_read_only_search_can_be_looked_at(small_disk: SmallDisk) -> None:
    directory = new_search(small_disk.folder / "search")
    directory.write_tree(rich_tree())
    with small_disk.read_only():
        assert SearchDirectory.open(directory.root).read_tree() == rich_tree()
        with pytest.raises(StorageError, match=small_disk.read_only_words):
            directory.write_tree(small_tree())
        with pytest.raises(StorageError, match=small_disk.read_only_words):
            new_search(small_disk.folder / "other")


def test_the_layout(directory: SearchDirectory) -> None:
    root = directory.root
    phase = directory.phase(7)
    assert phase.path == root / "phases/0007"
    assert phase.specification == root / "phases/0007/config.yaml"
    assert phase.attempt(2).metrics == root / "phases/0007/attempts/2/metrics.jsonl"
    assert phase.attempt(2).marker() == root / "phases/0007/attempts/2/marker.json"
    assert phase.attempt(2).marker(3) == root / "phases/0007/attempts/2/marker-3.json"
    assert directory.evaluation("test", 7, 120).path == root / "evaluations/test_0007_120"
    assert phase.attempts() == []
    for number in (10, 9, 1):
        phase.attempt(number).create()
    (phase.path / "attempts" / ".tmp-x").touch()
    assert phase.attempts() == [phase.attempt(1), phase.attempt(9), phase.attempt(10)]


def test_prompts_lie_in_a_private_folder(directory: SearchDirectory) -> None:
    phase = directory.phase(0)
    phase.create()
    phase.create()
    assert stat.S_IMODE(phase.agents.stat().st_mode) == 0o700


def test_metrics_of_a_node_come_from_all_its_attempts(directory: SearchDirectory) -> None:
    for number, steps in ((1, (1, 2, 3)), (2, (3, 4))):
        attempt = directory.phase(0).attempt(number)
        attempt.create()
        for step in steps:
            MetricsWriter(attempt.metrics, number, 0).write(step, {"kl": float(number)})
    rows = directory.metrics(0).rows
    assert rows == tuple(MetricRow(step, {"kl": value}) for step, value in ((1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)))
    assert [row.step for row in directory.metrics(0, up_to=3).rows] == [1, 2, 3]
    assert directory.metrics(1).rows == ()


def test_the_store_imports_nothing_heavy() -> None:
    code = (
        "import pkgutil, importlib, sys, llmzero_hpc.store as store\n"
        "[importlib.import_module(f'llmzero_hpc.store.{m.name}') for m in pkgutil.iter_modules(store.__path__)]\n"
        "print(sorted({'numpy', 'h5py', 'torch', 'psutil', 'matplotlib', 'submitit'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
