"""A file is replaced whole or not at all, and every refusal of the disk is one clear line."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from kills import at_once, killed_at_every_step
from store_samples import names

from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.atomic import append_line, create_bytes, read_bytes, remove, write_bytes, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from disks import SmallDisk

OLD, NEW = b"old " * 50, b"new, and longer " * 50


def refuse(code: int) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def test_a_kill_at_any_step_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = []
    for step in killed_at_every_step(lambda: write_bytes(path, OLD), lambda: write_bytes(path, NEW)):
        found = path.read_bytes()
        assert found in {OLD, NEW}, step
        seen.append(found)
    assert len(seen) >= 15
    assert {OLD, NEW} == set(seen)


def test_the_content_is_on_disk_before_the_rename_and_the_rename_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("write", "fsync", "replace"):

        def noted(real: Any, name: str, *args: Any) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, partial(noted, getattr(os, name), name))
    write_bytes(tmp_path / "file", NEW)
    assert calls == ["write", "fsync", "replace", "fsync"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_refusal_at_any_step_is_one_line_and_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, step: str
) -> None:
    path = tmp_path / "file"
    write_bytes(path, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, step, refuse(code))
        with pytest.raises(StorageError) as caught:
            write_bytes(path, NEW)
    assert caught.value.message.endswith(f" while writing {path}")
    assert "\n" not in caught.value.message
    assert caught.value.next_step
    assert names(tmp_path) == ["file"]
    assert path.read_bytes() == OLD


def test_a_write_in_several_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    write_bytes(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW


def test_a_full_disk_leaves_the_old_file_and_the_search_goes_on_when_there_is_space(small_disk: SmallDisk) -> None:
    path = small_disk.folder / "file"
    write_bytes(path, OLD)
    with small_disk.full():
        with pytest.raises(StorageError) as caught:
            write_bytes(path, NEW)
        found, left = path.read_bytes(), names(small_disk.folder)
    assert caught.value.message == f"{small_disk.full_words} while writing {path}"
    assert found == OLD
    assert not [name for name in left if name.startswith(".tmp-")]
    write_bytes(path, NEW)
    assert path.read_bytes() == NEW


def test_a_line_that_a_full_disk_cut_is_closed_by_the_next(small_disk: SmallDisk) -> None:
    path = small_disk.folder / "lines"
    append_line(path, "one")
    with small_disk.full(), pytest.raises(StorageError, match=small_disk.full_words):
        append_line(path, "x" * 100_000)
    append_line(path, "two")
    lines = path.read_text().split("\n")
    assert [line for line in lines if line.strip("x")] == ["one", "two"]


def test_a_read_only_folder_is_one_line(small_disk: SmallDisk) -> None:
    path = small_disk.folder / "file"
    write_bytes(path, OLD)
    with small_disk.read_only():
        for action in (lambda: write_bytes(path, NEW), lambda: create_bytes(small_disk.folder / "other", NEW)):
            with pytest.raises(StorageError, match=small_disk.read_only_words):
                action()
    assert path.read_bytes() == OLD


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    for action in (lambda: write_bytes(tmp_path / "no" / "file", NEW), lambda: append_line(tmp_path / "no" / "f", "")):
        with pytest.raises(StorageError, match="Folder or file is gone while writing"):
            action()


def test_private_files_are_private_and_the_umask_narrows_the_others(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write_bytes(tmp_path / "private", b"", mode=0o600)
        append_line(tmp_path / "lines", "", mode=0o600)
        write_bytes(tmp_path / "shared", b"")
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"private": 0o600, "lines": 0o600, "shared": 0o640}


def test_json_that_is_no_json_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"score": float("nan")})
    assert not names(tmp_path)


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_many_processes_one_creates_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    if not hard_links:
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    path = tmp_path / "file"

    def create(number: int) -> None:
        os._exit(0 if create_bytes(path, str(number).encode()) else 3)

    statuses = at_once([partial(create, number) for number in range(8)])
    assert sorted(statuses) == [0] + [3] * 7
    assert path.read_text() == str(statuses.index(0))
    assert names(tmp_path) == ["file"]


def test_a_creation_whose_answer_the_network_lost_is_known_as_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def repeated(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", repeated)
    assert create_bytes(tmp_path / "file", NEW)


def test_every_torn_last_line_is_closed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for length in range(len("second")):
        path.write_text("first\n" + "second"[:length])
        append_line(path, "third")
        assert path.read_text().split("\n")[-2:] == ["third", ""]
        assert path.read_text().startswith("first\n")
        assert "" not in path.read_text().split("\n")[:-1]


def test_a_kill_while_appending_loses_at_most_that_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for _ in killed_at_every_step(lambda: path.write_text("one\n"), lambda: append_line(path, "two" * 5)):
        append_line(path, "three")
        lines = path.read_text().splitlines()
        assert lines[0] == "one"
        assert lines[-1] == "three"
        assert len(lines) <= 3


def test_a_line_break_inside_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no newline"):
        append_line(tmp_path / "lines", "a\nb")


def test_a_reader_that_meets_a_replacement_on_a_network_file_system_gets_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, NEW)
    real, refusals = type(path).read_bytes, [refuse(errno.ESTALE), refuse(errno.ESTALE)]
    monkeypatch.setattr(type(path), "read_bytes", lambda self: refusals.pop()() if refusals else real(self))
    assert read_bytes(path) == NEW


def test_reading_and_removing_what_is_not_there(tmp_path: Path) -> None:
    assert read_bytes(tmp_path / "file") is None
    assert not remove(tmp_path / "file")
    with pytest.raises(StorageError, match="while reading"):
        read_bytes(tmp_path)
