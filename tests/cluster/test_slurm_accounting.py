"""How seldom sacct is asked, and what stands when it does not answer."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from slurm_programs import DOWN, Clock, Programs

from llmzero_hpc.cluster.base import Charge, JobState
from llmzero_hpc.cluster.slurm_accounting import Accounting
from llmzero_hpc.cluster.slurm_books import BOOK_FORMAT
from llmzero_hpc.cluster.slurm_commands import SlurmCommands
from llmzero_hpc.cluster.slurm_queue import FIELD_END, QueuedJob
from llmzero_hpc.search.node import Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

JOB = Job("7", "lz-a", 100.0)


def run(state: str, *, start: int, end: int | None, name: str = "lz-a", job_id: str = "7") -> str:
    stop = "Unknown" if end is None else str(end)
    elapsed = str((end or start) - start)
    fields = [job_id, name, state, str(start), str(start), stop, elapsed, "cpu=4,gres/gpu=2", "node1", "/home"]
    assert len(fields) == BOOK_FORMAT.count(",") + 1
    return FIELD_END.join([*fields, "\n"])


def queued(state: str, *, restarts: int = 0, start: float = 200.0) -> Mapping[str, QueuedJob]:
    return {"lz-a": QueuedJob("7", "lz-a", state, restarts, start, 100.0, "node1", "/home", "")}


class Books:
    """An accounting whose sacct prints what is written here."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.clock = Clock()
        self.calls = Counter[str]()
        self.accounting = Accounting(SlurmCommands(self.calls, 60.0, self.clock), self.clock)

    def say(self, *rows: str) -> None:
        (self.programs.folder / "rows").write_text("".join(rows))
        self.programs.write("sacct", f"cat {self.programs.folder}/rows")

    def charge(self, row: Mapping[str, QueuedJob]) -> Charge | None:
        self.accounting.update([JOB], row)
        return self.accounting.charge(JOB)


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Books:
    programs = Programs(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    return Books(programs)


def test_a_job_that_lives_is_not_asked_for(books: Books) -> None:
    assert books.charge(queued("PENDING")) is None
    assert books.charge(queued("RUNNING")) is None
    assert not books.calls


def test_each_requeue_is_asked_for_until_the_books_have_it_and_once(books: Books) -> None:
    books.say()
    assert books.charge(queued("RUNNING", restarts=1)) is None
    books.say(run("PREEMPTED", start=200, end=210))
    for _ in range(3):
        assert books.charge(queued("RUNNING", restarts=1, start=300.0)) == Charge(20.0, final=False)
    assert books.calls["sacct"] == 2
    books.say(run("PREEMPTED", start=200, end=210), run("NODE_FAIL", start=300, end=305))
    assert books.charge(queued("PENDING", restarts=2)) == Charge(30.0, final=False)
    assert books.calls["sacct"] == 3


def test_an_ended_job_is_asked_for_until_its_charge_is_final(books: Books) -> None:
    books.say(run("RUNNING", start=200, end=None))
    assert books.charge(queued("COMPLETED")) == Charge(0.0, final=False)
    books.say(run("COMPLETED", start=200, end=260))
    for row in (queued("COMPLETED"), queued("COMPLETED"), {}):
        assert books.charge(row) == Charge(120.0, final=True)
    assert books.calls["sacct"] == 2


def test_what_was_known_stands_while_the_books_are_closed(books: Books) -> None:
    books.say(run("PREEMPTED", start=200, end=210))
    books.charge(queued("RUNNING", restarts=1))
    books.programs.write("sacct", DOWN)
    for tick in range(120):
        books.clock.now = tick * 30.0
        assert books.charge({}) == Charge(20.0, final=False)
    assert books.calls["sacct"] <= 21
    assert books.accounting.is_kept
    assert books.accounting.ending(JOB) is None


def test_books_that_are_torn_say_nothing(books: Books) -> None:
    books.say(run("COMPLETED", start=200, end=260)[:-9])
    assert books.charge(queued("COMPLETED")) is None


def test_a_job_that_only_the_books_know_has_ended_as_they_say(books: Books) -> None:
    books.say(run("PREEMPTED", start=200, end=210), run("TIMEOUT", start=300, end=310))
    assert books.charge({}) == Charge(40.0, final=True)
    ending = books.accounting.ending(JOB)
    assert ending is not None
    assert (ending.state, ending.restarts, ending.started_at) == (JobState.TIME_LIMIT, 1, 300.0)


def test_rows_of_another_job_with_that_id_are_not_this_jobs(books: Books) -> None:
    books.say(run("COMPLETED", start=50, end=60, name="lz-other"), run("FAILED", start=200, end=201))
    assert books.charge({}) == Charge(2.0, final=True)


def test_a_cluster_without_accounting_is_asked_once_an_hour(books: Books) -> None:
    books.programs.write("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    for tick in range(240):
        books.clock.now = tick * 30.0
        assert books.charge(queued("COMPLETED")) is None
        assert not books.accounting.is_kept
    assert books.calls["sacct"] == 2
    books.say(run("COMPLETED", start=200, end=260))
    books.clock.now = 3 * 3600.0
    assert books.charge(queued("COMPLETED")) == Charge(120.0, final=True)
    assert books.accounting.is_kept
