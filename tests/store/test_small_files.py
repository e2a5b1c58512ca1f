"""Markers, heartbeats, events and requests: small files that other processes write and read."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from kills import killed_at_every_step
from store_samples import new_search

from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.control import (
    StopRequest,
    cancel_requests,
    clear_cancel,
    clear_pause,
    clear_stop,
    is_paused,
    request_cancel,
    request_pause,
    request_stop,
    stop_request,
)
from llmzero_hpc.store.daemon_file import (
    Heartbeat,
    QueuedController,
    clear_queued,
    read_heartbeat,
    read_queued,
    silence_seconds,
    write_heartbeat,
    write_queued,
)
from llmzero_hpc.store.events import Event, append_event, read_events
from llmzero_hpc.store.marker import Marker, read_marker, write_marker
from llmzero_hpc.store.phase_directory import AttemptDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from disks import SmallDisk

    from llmzero_hpc.store.search_directory import SearchDirectory

MARKER = Marker("lz-sample-7-1", 1, 2, 10.5, 20.0, -9, "terminated")
HEARTBEAT = Heartbeat("login1", 17, "boot", 1.0, 2.5, 3, "sbatch: try later", {"sbatch": 4}, "a free slot", job_id="7")


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDirectory:
    made = AttemptDirectory(tmp_path / "attempts" / "1")
    made.create()
    return made


def test_a_marker_is_read_as_it_was_written(attempt: AttemptDirectory) -> None:
    assert read_marker(AttemptDirectory(attempt.path / "nowhere")) is None
    assert read_marker(attempt) is None
    write_marker(attempt, MARKER)
    assert read_marker(attempt) == MARKER


def test_the_newest_run_that_left_a_marker_has_the_word(attempt: AttemptDirectory) -> None:
    ninth, tenth = replace(MARKER, restart=9, outcome="error"), replace(MARKER, restart=10)
    for marker in (tenth, replace(MARKER, restart=0), ninth):
        write_marker(attempt, marker)
    assert read_marker(attempt) == tenth
    attempt.marker(10).write_bytes(b"{")
    assert read_marker(attempt) == ninth
    shutil.copy(attempt.marker(9), attempt.marker(11))
    assert read_marker(attempt) == ninth


def test_a_kill_at_any_step_of_writing_a_marker_leaves_none_or_all_of_it(attempt: AttemptDirectory) -> None:
    path = attempt.marker(MARKER.restart)
    found = set()
    for _ in killed_at_every_step(lambda: path.unlink(missing_ok=True), lambda: write_marker(attempt, MARKER)):
        found.add(read_marker(attempt))
    assert found == {None, MARKER}


def test_no_torn_length_of_a_marker_or_a_heartbeat_is_taken_for_one(directory: SearchDirectory) -> None:
    attempt = directory.phase(0).attempt(1)
    attempt.create()
    write_marker(attempt, MARKER)
    write_heartbeat(directory, HEARTBEAT)
    path = attempt.marker(MARKER.restart)
    for file, read in ((path, lambda: read_marker(attempt)), (directory.root / "daemon.json", lambda: beat(directory))):
        whole = file.read_bytes()
        assert read() is not None
        for length in range(len(whole) - 1):
            file.write_bytes(whole[:length])
            assert read() is None
        file.write_bytes(bytes(len(whole)))
        assert read() is None


def beat(directory: SearchDirectory) -> Heartbeat | None:
    return read_heartbeat(directory)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"terminated"', '"finished"'), ('"attempt": 1', '"attempt": "1"'), ('"attempt": 1', '"attempt": 1, "more": 2'),
        ('"exit_code": -9', '"exit_code": null'), ('"ended_at": 20.0', '"ended_at": NaN'), ('"restart": 2,', ""),
    ],
)  # fmt: skip
def test_a_marker_that_is_not_ours_is_none(attempt: AttemptDirectory, old: str, new: str) -> None:
    path = attempt.marker(MARKER.restart)
    write_marker(attempt, MARKER)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert read_marker(attempt) is None


def test_a_controllers_job_is_noted_until_it_has_ended(directory: SearchDirectory) -> None:
    assert read_queued(directory) is None
    clear_queued(directory)
    for queued in (QueuedController("17", 1.5), QueuedController("18", 2.5)):
        write_queued(directory, queued)
        assert read_queued(directory) == queued
    clear_queued(directory)
    assert read_queued(directory) is None


def test_a_controller_is_silent_after_a_while_and_later_where_cron_starts_it() -> None:
    assert silence_seconds(30.0) == 300.0
    assert silence_seconds(90.0) == 450.0
    assert silence_seconds(30.0, by_cron=True) == 900.0


def test_the_last_heartbeat_counts(directory: SearchDirectory) -> None:
    assert read_heartbeat(directory) is None
    write_heartbeat(directory, HEARTBEAT)
    write_heartbeat(directory, replace(HEARTBEAT, ticks=4))
    assert read_heartbeat(directory) == replace(HEARTBEAT, ticks=4)


def test_events_are_read_in_order(directory: SearchDirectory) -> None:
    assert read_events(directory) == []
    for number in range(50):
        assert append_event(directory, float(number), "phase", f"ä{number}\nsecond line", node=number or None)
    events = read_events(directory)
    assert events[0] == Event(0.0, "phase", "ä0\nsecond line", None)
    assert [event.time for event in events] == list(map(float, range(50)))
    for last in (0, 1, 7, 50, 99):
        assert read_events(directory, last=last) == events[max(0, 50 - last) :]


def test_the_last_events_of_a_long_history_are_found_from_its_end(directory: SearchDirectory) -> None:
    for number in range(100):
        append_event(directory, float(number), "note", "x" * 3000)
    assert [event.time for event in read_events(directory, last=60)] == list(map(float, range(40, 100)))


def test_every_torn_length_of_an_event_loses_that_event_alone(directory: SearchDirectory) -> None:
    path = directory.root / "events.jsonl"
    append_event(directory, 1.0, "kind", "größer", 3)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1):
        path.write_bytes(whole + whole[:length])
        assert len(read_events(directory)) == 1
        append_event(directory, 2.0, "kind", "later")
        assert [event.time for event in read_events(directory)] == [1.0, 2.0]


def test_events_are_dropped_when_the_disk_is_full_or_read_only(small_disk: SmallDisk, monkeypatch: Any) -> None:
    directory = new_search(small_disk.folder / "search")
    if small_disk.mounted:
        with small_disk.full():
            assert not append_event(directory, 1.0, "kind", "x" * 100_000)
        with small_disk.read_only():
            assert not append_event(directory, 1.0, "kind", "message")
    for code, dropped in ((errno.ENOSPC, True), (errno.EROFS, True), (errno.EIO, False), (errno.EACCES, False)):

        def refuse(*args: Any, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse)
            if dropped:
                assert not append_event(directory, 1.0, "kind", "message")
            else:
                with pytest.raises(StorageError, match=r"while writing .*events\.jsonl"):
                    append_event(directory, 1.0, "kind", "message")
    assert append_event(directory, 2.0, "kind", "message")
    assert read_events(directory)[-1] == Event(2.0, "kind", "message")


def test_a_pause_lasts_until_it_is_cleared(directory: SearchDirectory) -> None:
    assert not is_paused(directory)
    request_pause(directory)
    request_pause(directory)
    assert is_paused(directory)
    clear_pause(directory)
    clear_pause(directory)
    assert not is_paused(directory)


def test_a_stop_request_is_taken_once(directory: SearchDirectory) -> None:
    assert stop_request(directory) is None
    request_stop(directory)
    assert stop_request(directory) is StopRequest.CONTROLLER
    request_stop(directory, StopRequest.JOBS_TOO)
    assert stop_request(directory) is StopRequest.JOBS_TOO
    clear_stop(directory)
    assert stop_request(directory) is None


def test_cancel_requests_wait_until_the_tree_carries_them(directory: SearchDirectory) -> None:
    assert cancel_requests(directory) == []
    for node in (12, 3, 12, 12345):
        request_cancel(directory, node)
    (directory.root / "control" / ".tmp-cancel_0009-1-ab").touch()
    assert cancel_requests(directory) == [3, 12, 12345]
    clear_cancel(directory, 3)
    clear_cancel(directory, 3)
    assert cancel_requests(directory) == [12, 12345]


def test_requests_need_no_folder(directory: SearchDirectory) -> None:
    (directory.root / "control").rmdir()
    assert cancel_requests(directory) == []
    assert not is_paused(directory)
    request_cancel(directory, 1)
    assert cancel_requests(directory) == [1]
