"""Metrics are appended by one process and read by others, at any moment, whatever became of the writer."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from kills import killed_at_every_step

from llmzero_hpc.errors import StorageError
from llmzero_hpc.search.metrics import MetricRow
from llmzero_hpc.store.metrics_log import MetricsReader, MetricsWriter, read_series

if TYPE_CHECKING:
    from pathlib import Path

    from disks import SmallDisk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def line(step: object, attempt: object = 1, restart: object = 0, metrics: object = None) -> str:
    return json.dumps({"attempt": attempt, "restart": restart, "step": step, "metrics": metrics or {}}) + "\n"


def steps(rows: list[MetricRow]) -> list[int]:
    return [row.step for row in rows]


def test_rows_arrive_as_they_were_written(path: Path) -> None:
    writer, reader = MetricsWriter(path, 1, 0), MetricsReader(path)
    assert reader.new_rows() == []
    writer.write(5, {"kl": 0.5, "val_score/easy": 1}, raw={"objective/kl": 0.5})
    assert reader.new_rows() == [MetricRow(5, {"kl": 0.5, "val_score/easy": 1.0})]
    assert reader.new_rows() == []
    writer.write(6, {})
    assert reader.new_rows() == [MetricRow(6, {})]
    written = json.loads(path.read_text().splitlines()[0])
    assert set(written) == {"attempt", "restart", "step", "time", "metrics", "raw"}
    assert written["raw"] == {"objective/kl": 0.5}


def test_a_training_that_diverged_is_still_reported(path: Path) -> None:
    MetricsWriter(path, 1, 0).write(1, {"kl": math.nan, "grad_norm": math.inf})
    (row,) = MetricsReader(path).new_rows()
    assert math.isnan(row.values["kl"])
    assert row.values["grad_norm"] == math.inf


def test_every_torn_length_of_the_last_line_waits_for_its_end(path: Path) -> None:
    MetricsWriter(path, 1, 0).write(1, {"kl": 0.5})
    MetricsWriter(path, 1, 0).write(2, {"kl": 0.25})
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        reader = MetricsReader(path)
        assert steps(reader.new_rows()) == [1]
        with path.open("ab") as stream:
            stream.write(whole[length:])
        assert reader.new_rows() == [MetricRow(2, {"kl": 0.25})]
        assert reader.broken_lines == 0


def test_every_torn_length_that_the_next_attempt_closed_loses_that_row_alone(path: Path) -> None:
    MetricsWriter(path, 1, 0).write(1, {"kl": 0.5})
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1):
        path.write_bytes(whole + whole[:length])
        MetricsWriter(path, 1, 1).write(2, {"kl": 0.25})
        reader = MetricsReader(path)
        assert steps(reader.new_rows()) == [1, 2]
        assert reader.broken_lines == 1


@pytest.mark.parametrize(
    "broken",
    [
        "{", "null", "[]", "1", "\0\0\0", line("2"), line(2.5), line(True), line(2, attempt="1"), line(2, restart=None),
        line(2, metrics={"kl": "0.5"}), line(2, metrics={"kl": None}), line(2, metrics=[1]), "[" * 100_000,
        '{"step": 2}',
        '{"attempt":1,"restart":0,"step":2,"metrics":{"kl":' + "9" * 5000 + "}}",
    ],
)  # fmt: skip
def test_a_broken_line_is_skipped_and_counted(path: Path, broken: str) -> None:
    path.write_text(line(1) + broken.rstrip("\n") + "\n" + line(3))
    reader = MetricsReader(path)
    assert steps(reader.new_rows()) == [1, 3]
    assert reader.broken_lines == 1


def test_a_truncated_or_replaced_file_is_read_from_its_start(path: Path) -> None:
    reader = MetricsReader(path)
    path.write_text(line(1, attempt=2) + line(2, attempt=2))
    assert steps(reader.new_rows()) == [1, 2]
    path.write_text(line(7))
    assert steps(reader.new_rows()) == [7]
    other = path.with_name("other")
    other.write_text(line(8) + line(9) + line(10))
    other.replace(path)
    assert steps(reader.new_rows()) == [8, 9, 10]


def test_a_file_that_went_away_gives_no_rows(path: Path) -> None:
    reader = MetricsReader(path)
    path.write_text(line(1))
    assert steps(reader.new_rows()) == [1]
    path.unlink()
    assert reader.new_rows() == []


def test_what_an_older_run_writes_after_a_newer_one_began_is_ignored(path: Path) -> None:
    old, new, reader = MetricsWriter(path, 1, 0), MetricsWriter(path, 1, 1), MetricsReader(path)
    old.write(1, {})
    old.write(2, {})
    assert steps(reader.new_rows()) == [1, 2]
    new.write(2, {"kl": 1.0})
    old.write(3, {})
    assert reader.new_rows() == [MetricRow(2, {"kl": 1.0})]
    old.write(4, {})
    new.write(3, {"kl": 1.0})
    assert reader.new_rows() == [MetricRow(3, {"kl": 1.0})]
    assert reader.broken_lines == 0


def test_a_late_row_of_an_earlier_attempt_changes_nothing_of_a_later_one(tmp_path: Path) -> None:
    first, second, missing = (tmp_path / name for name in ("1", "2", "3"))
    old, new = MetricsWriter(first, 1, 0), MetricsWriter(second, 2, 0)
    for step in (1, 2, 3, 4):
        old.write(step, {"kl": 1.0})
    new.write(3, {"kl": 2.0})
    old.write(5, {"kl": 1.0})
    series = read_series([first, missing, second])
    assert series.points("kl") == ((1, 1.0), (2, 1.0), (3, 2.0))


def test_a_kill_at_any_step_of_writing_a_row_loses_at_most_that_row(path: Path) -> None:
    def prepare() -> None:
        path.unlink(missing_ok=True)
        MetricsWriter(path, 1, 0).write(1, {"kl": 0.5})

    for step in killed_at_every_step(prepare, lambda: MetricsWriter(path, 1, 0).write(2, {"kl": 0.25})):
        MetricsWriter(path, 1, 1).write(2, {"kl": 0.125})
        rows = MetricsReader(path).new_rows()
        assert rows[0] == MetricRow(1, {"kl": 0.5}), step
        assert rows[-1] == MetricRow(2, {"kl": 0.125}), step
        assert rows[1:-1] in ([], [MetricRow(2, {"kl": 0.25})]), step


def test_a_reader_beside_a_writer_that_is_killed_sees_every_row_once_and_in_order(path: Path) -> None:
    reader, deadline = MetricsReader(path), time.monotonic() + 300
    seen: list[MetricRow] = []
    for restart in range(4):
        first = len(seen) + 1
        child = os.fork()
        if child == 0:
            writer, step = MetricsWriter(path, 1, restart), first
            while True:
                writer.write(step, {"kl": step / 2, "val_score/long name": step * 1.0})
                step += 1
        while len(seen) < first + 200 and time.monotonic() < deadline:
            seen += reader.new_rows()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen += reader.new_rows()
        assert len(seen) >= first + 200
    assert seen == [MetricRow(n, {"kl": n / 2, "val_score/long name": n * 1.0}) for n in range(1, len(seen) + 1)]
    assert reader.broken_lines <= 3, "at most one torn line a kill"


def test_a_full_disk_is_one_line_for_the_trainer_and_no_row_for_the_reader(small_disk: SmallDisk) -> None:
    path = small_disk.folder / "metrics.jsonl"
    writer, reader = MetricsWriter(path, 1, 0), MetricsReader(path)
    writer.write(1, {})
    with small_disk.full(), pytest.raises(StorageError, match=small_disk.full_words):
        writer.write(2, {f"metric{number}": 1.0 for number in range(1000)})
    writer.write(3, {})
    assert steps(reader.new_rows()) == [1, 3]
