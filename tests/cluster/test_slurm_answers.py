"""What squeue and sacct print, read: every row whole, and none that was not there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.cluster.base import Charge, JobState
from llmzero_hpc.cluster.slurm_books import Run, charge_of, last_word, parse_books
from llmzero_hpc.cluster.slurm_commands import one_line
from llmzero_hpc.cluster.slurm_queue import FIELD_END, ROW_END, QueuedJob, parse_queue
from llmzero_hpc.cluster.slurm_states import STATES, state_of

LIVE_WORDS = sorted(word for word, state in STATES.items() if state.is_live)
END_WORDS = sorted(set(STATES) - set(LIVE_WORDS))

texts = st.text(st.characters(exclude_characters=FIELD_END + ROW_END, exclude_categories=["Cs"]), max_size=20)
words = st.text(st.characters(categories=["L", "N"], include_characters="|,;: []=-_"), min_size=1, max_size=20)
times = st.none() | st.integers(0, 2**33).map(float)
counts = st.integers(0, 2**20)
queued_jobs = st.builds(
    QueuedJob,
    job_id=counts.map(str) | st.builds("{}_[{}-{}%2]".format, counts, counts, counts),
    name=words,
    state=st.sampled_from(sorted(STATES)) | words,
    restarts=counts,
    started_at=times,
    submitted_at=times,
    hosts=st.sampled_from(["", "node1", "node[1-3,7],gpu[01-12]"]),
    folder=texts,
    reason=texts.filter(lambda text: text not in {"(null)", "None", "None assigned", "N/A"}),
)
runs = st.builds(
    Run,
    job_id=counts.map(str),
    name=words,
    state=st.sampled_from([*STATES, "CANCELLED by 1000"]),
    submitted_at=st.integers(0, 2**33).map(float),
    started_at=times,
    ended_at=times,
    elapsed_seconds=counts.map(float),
    devices=st.integers(0, 512),
    hosts=st.sampled_from(["", "node1", "node[1-3,7]"]),
    folder=texts.filter(lambda text: "\n" not in text),
)


def as_time(seconds: float | None) -> str:
    return "N/A" if seconds is None else f"{seconds:.0f}"


def queue_row(job: QueuedJob) -> str:
    times = [as_time(job.started_at), as_time(job.submitted_at)]
    fields = [job.job_id, job.name, job.state, str(job.restarts), *times, job.hosts, job.folder, job.reason or "None"]
    return FIELD_END.join(fields) + ROW_END + "\n"


def book_row(run: Run) -> str:
    times = [as_time(moment) for moment in (run.submitted_at, run.started_at, run.ended_at)]
    devices = f"billing=1,cpu=7,gres/gpu={run.devices},mem=3G,node=2" if run.devices else "mem=3G"
    hosts = run.hosts or "None assigned"
    fields = [run.job_id, run.name, run.state, *times, f"{run.elapsed_seconds:.0f}", devices, hosts, run.folder]
    return FIELD_END.join([*fields, "\n"])


def run_of(state: str, *, seconds: float = 60.0, ended: bool = True, place: int = 0, devices: int = 2) -> Run:
    start = 1000.0 * place
    end = start + seconds if ended else None
    return Run("7", "lz-a", state, start, start, end, seconds, devices, "node1", "/home")


@given(st.lists(queued_jobs, max_size=4))
def test_queue_rows_come_back_as_they_were(jobs: list[QueuedJob]) -> None:
    assert parse_queue("".join(map(queue_row, jobs))) == jobs


@given(st.lists(queued_jobs, min_size=1, max_size=3), st.data())
def test_a_torn_queue_is_refused_or_lacks_whole_rows(jobs: list[QueuedJob], data: st.DataObject) -> None:
    whole = "".join(map(queue_row, jobs))
    torn = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        read = parse_queue(torn)
    except ValueError:
        return
    assert read == jobs[: len(read)]


@given(st.text(max_size=200))
def test_what_is_no_queue_makes_no_row(text: str) -> None:
    try:
        assert parse_queue(text) == []
    except ValueError:
        return


@given(queued_jobs)
def test_only_a_known_word_ends_a_job(job: QueuedJob) -> None:
    seen = job.observation()
    assert seen.state.is_live is job.is_live
    assert job.is_live or STATES[job.state.split()[0].rstrip("+")] is seen.state
    assert seen.restarts == job.restarts
    if seen.state is JobState.PENDING:
        assert seen.started_at is None


@pytest.mark.parametrize("word", LIVE_WORDS)
def test_live_words(word: str) -> None:
    assert state_of(word) in {JobState.PENDING, JobState.RUNNING}


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("COMPLETED", JobState.COMPLETED),
        ("FAILED", JobState.FAILED),
        ("OUT_OF_MEMORY", JobState.FAILED),
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("TIMEOUT", JobState.TIME_LIMIT),
        ("DEADLINE", JobState.TIME_LIMIT),
        ("PREEMPTED", JobState.PREEMPTED),
        ("NODE_FAIL", JobState.NODE_FAILURE),
        ("BOOT_FAIL", JobState.NODE_FAILURE),
        ("", None),
        ("A_WORD_OF_LATER", None),
    ],
)
def test_words_of_an_end(word: str, state: JobState | None) -> None:
    assert state_of(word) is state


def test_a_pending_job_says_why() -> None:
    held = QueuedJob("7", "lz-a", "PENDING", 1, 5.0, 1.0, "", "/home", "JobHeldUser")
    seen = held.observation()
    assert (seen.state, seen.reason, seen.restarts, seen.started_at) == (JobState.PENDING, "JobHeldUser", 1, None)


def test_an_ended_job_says_how() -> None:
    seen = QueuedJob("7", "lz-a", "FAILED", 0, 5.0, 1.0, "node1", "/home", "NonZeroExitCode").observation()
    assert (seen.state, seen.reason, seen.hosts) == (JobState.FAILED, "FAILED NonZeroExitCode", "node1")


def test_a_job_that_never_ran_has_no_start() -> None:
    cancelled = QueuedJob("7", "lz-a", "CANCELLED", 0, 5.0, 1.0, "", "/home", "")
    assert cancelled.observation().started_at is None


@given(st.lists(runs, max_size=4))
def test_book_rows_come_back_in_their_order(rows: list[Run]) -> None:
    read = parse_books("".join(map(book_row, rows)))
    assert sorted(map(repr, read)) == sorted(map(repr, rows))
    submitted = [run.submitted_at or 0.0 for run in read]
    assert submitted == sorted(submitted)


@given(st.lists(runs, min_size=1, max_size=3), st.data())
def test_torn_books_are_refused_or_lack_whole_rows(rows: list[Run], data: st.DataObject) -> None:
    whole = "".join(map(book_row, rows))
    torn = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        read = parse_books(torn)
    except ValueError:
        return
    assert sorted(map(repr, read)) == sorted(map(repr, rows[: len(read)]))


@pytest.mark.parametrize(
    ("allocated", "devices"),
    [
        ("billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=1G,node=1", 2),
        ("cpu=8,gres/gpu:a100=2,gres/gpu:h100=1", 3),
        ("cpu=8,gres/gpu=16", 16),
        ("billing=8,cpu=8,mem=1G,node=1", 8),
        ("cpu=8,gres/nic=2", 8),
        ("", 0),
    ],
)
def test_devices_are_gpus_or_else_cpus(allocated: str, devices: int) -> None:
    row = FIELD_END.join(["7", "lz-a", "COMPLETED", "1", "2", "3", "1", allocated, "node1", "/", "\n"])
    assert [run.devices for run in parse_books(row)] == [devices]


def queued(state: str, restarts: int, *, place: int = 0, hosts: str = "node1") -> QueuedJob:
    return QueuedJob("7", "lz-a", state, restarts, 1000.0 * place, 0.0, hosts, "/home", "")


def test_the_charge_is_that_of_all_runs() -> None:
    rows = [run_of("PREEMPTED", seconds=10), run_of("COMPLETED", seconds=5, place=1, devices=4)]
    for row in (None, queued("COMPLETED", 1, place=1)):
        assert charge_of(rows, row) == Charge(10 * 2 + 5 * 4, final=True)


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ([run_of("COMPLETED")], queued("COMPLETING", 0)),
        ([run_of("RUNNING", ended=False)], queued("COMPLETED", 0)),
        ([run_of("RUNNING", ended=False)], None),
        ([run_of("REQUEUED")], None),
        ([run_of("PREEMPTED")], queued("COMPLETED", 1, place=1)),
        ([run_of("RUNNING", ended=False), run_of("COMPLETED", place=1)], queued("COMPLETED", 1, place=1)),
        ([], queued("CANCELLED", 0)),
        ([], None),
    ],
)
def test_a_charge_that_may_grow_is_not_final(rows: list[Run], row: QueuedJob | None) -> None:
    assert not charge_of(rows, row).final


def test_a_last_run_without_machines_costs_nothing_and_may_be_missing() -> None:
    assert charge_of([run_of("REQUEUED")], queued("CANCELLED", 1, place=1, hosts="")) == Charge(120.0, final=True)
    assert charge_of([run_of("REQUEUED")], queued("CANCELLED", 1)) == Charge(120.0, final=True)
    assert charge_of([], queued("CANCELLED", 0, hosts="")) == Charge(0.0, final=True)


@given(st.lists(runs, min_size=1, max_size=4))
def test_the_books_tell_an_end_only_of_a_last_run_that_ended(rows: list[Run]) -> None:
    seen = last_word(rows)
    assert (seen is None) == (not rows[-1].is_end)
    assert seen is None or not seen.state.is_live


@pytest.mark.parametrize(
    ("complaint", "line"),
    [
        (
            "sbatch: error: no partition: nope\nsbatch: error: Batch job submission failed: Invalid partition name\n",
            "no partition: nope; Batch job submission failed: Invalid partition name",
        ),
        (
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
            "Unable to contact slurm controller (connect failure)",
        ),
        ("sbatch: unrecognized option '--bogus'\n\n", "unrecognized option '--bogus'"),
        ("", ""),
    ],
)
def test_complaints_are_one_line(complaint: str, line: str) -> None:
    assert one_line(complaint) == line
