"""One controller at a time, from any login node, whatever was killed when."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from kills import asleep_at_every_step, at_once, in_child, killed_at_every_step
from store_samples import names, new_search, small_tree

from llmzero_hpc.errors import LeaseError, StorageError
from llmzero_hpc.store import process as process_module
from llmzero_hpc.store.lease import ControllerJob, Lease, holder_of, patience_seconds, silent_seconds
from llmzero_hpc.store.process import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Callable

    from disks import SmallDisk

    from llmzero_hpc.store.search_directory import SearchDirectory

WON, LOST, OUSTED = 0, 3, 4
RACERS = 8
PATIENCE_SECONDS = 300


def forge(directory: SearchDirectory, holder: ProcessIdentity, job: ControllerJob | None = None) -> None:
    content = {"token": "forged", "process": asdict(holder), "acquired_at": 900.0, "job": job and asdict(job)}
    (directory.root / "lease").write_text(json.dumps(content))


def silent_for(directory: SearchDirectory, seconds: float) -> None:
    """The holder has not renewed its lease for so long."""
    renewed = (directory.root / "lease").stat().st_mtime - seconds
    os.utime(directory.root / "lease", (renewed, renewed))


def last_heard(refusal: pytest.ExceptionInfo[LeaseError]) -> int:
    """How many seconds ago, as a refusal says."""
    found = re.search(r"last heard of (\d+) s ago", refusal.value.message)
    assert found is not None
    return int(found[1])


def acquire_and_die(directory: SearchDirectory) -> None:
    """Leaves a lease whose holder is gone."""
    assert in_child(lambda: Lease.acquire(directory, take_over=True)) == 0


def race(directory: SearchDirectory, take_over: bool) -> list[int]:
    """Many processes acquire together; each lives until all have tried. OUSTED won first, and lost it then."""
    finished = directory.root / "finished"
    finished.mkdir(exist_ok=True)

    def run(number: int) -> None:
        try:
            lease = Lease.acquire(directory, take_over=take_over)
        except LeaseError:
            (finished / str(number)).touch()
            os._exit(LOST)
        (finished / str(number)).touch()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(names(finished)) < RACERS and time.monotonic() < deadline:
            time.sleep(0.001)
        try:
            lease.check()
        except LeaseError:
            os._exit(OUSTED)
        os._exit(WON)

    statuses = at_once([partial(run, number) for number in range(RACERS)])
    shutil.rmtree(finished)
    return sorted(statuses)


def test_a_second_controller_is_refused_and_told_who_holds_it(directory: SearchDirectory) -> None:
    lease = Lease.acquire(directory)
    silent_for(directory, 42.0)
    with pytest.raises(LeaseError) as caught:
        Lease.acquire(directory)
    assert f"process {os.getpid()} on {socket.gethostname()}, last heard of " in caught.value.message
    assert 42 <= last_heard(caught) < 42 + PATIENCE_SECONDS
    assert "--take-over" in caught.value.next_step
    lease.check()


def test_renewing_shows_that_the_holder_lives(directory: SearchDirectory) -> None:
    lease = Lease.acquire(directory)
    silent_for(directory, 1000.0)
    silent = holder_of(directory)
    lease.renew()
    holder = holder_of(directory)
    assert silent is not None
    assert holder is not None
    assert silent_seconds(directory, silent) >= 1000.0
    assert silent_seconds(directory, holder) < 500.0
    assert holder.acquired_at == silent.acquired_at


def test_a_lease_given_back_is_free(directory: SearchDirectory) -> None:
    for _ in range(3):
        lease = Lease.acquire(directory)
        lease.release()
        with pytest.raises(LeaseError):
            lease.check()
        lease.release()
    holder = holder_of(directory)
    assert holder is not None
    assert holder.is_gone


def test_the_lease_of_a_killed_process_is_taken_silently(directory: SearchDirectory) -> None:
    acquire_and_die(directory)
    Lease.acquire(directory).check()


def test_the_lease_of_a_process_that_nobody_has_reaped_yet_is_free(directory: SearchDirectory) -> None:
    child = os.fork()
    if child == 0:
        Lease.acquire(directory)
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    Lease.acquire(directory).check()
    os.waitpid(child, 0)


def test_a_living_process_with_a_used_pid_is_another_one(directory: SearchDirectory) -> None:
    forge(directory, replace(ProcessIdentity.own(), started="1"))
    Lease.acquire(directory).check()


def test_a_reboot_frees_the_lease(directory: SearchDirectory) -> None:
    forge(directory, replace(ProcessIdentity.own(), boot_id="another"))
    Lease.acquire(directory).check()


@pytest.mark.parametrize("change", [{"host": "elsewhere", "pid": 1, "boot_id": "x"}, {"pid_namespace": 1, "pid": 1}])
def test_a_holder_that_cannot_be_seen_from_here_holds_it(directory: SearchDirectory, change: dict[str, Any]) -> None:
    forge(directory, replace(ProcessIdentity.own(), **change))
    silent_for(directory, 100.0)
    with pytest.raises(LeaseError) as caught:
        Lease.acquire(directory)
    assert 100 <= last_heard(caught) < 100 + PATIENCE_SECONDS
    Lease.acquire(directory, take_over=True).check()


ELSEWHERE = ProcessIdentity("elsewhere", "boot", 1, 17, "1")


@pytest.mark.parametrize("tick_seconds", [0.02, 90.0])
def test_a_holder_elsewhere_is_given_up_after_ten_minutes_or_ten_ticks_of_silence(
    tmp_path: Path, tick_seconds: float
) -> None:
    directory = new_search(tmp_path / "search", tick_seconds=tick_seconds)
    patience = patience_seconds(directory)
    assert patience == (600.0 if tick_seconds < 1 else 900.0)
    forge(directory, ELSEWHERE)
    silent_for(directory, patience - 60.0)
    with pytest.raises(LeaseError) as caught:
        Lease.acquire(directory)
    assert "as any command does in 1 min if it stays silent" in caught.value.next_step
    silent_for(directory, patience + 1.0)
    with pytest.raises(LeaseError) as caught:
        Lease.acquire(directory, after_silence=False)
    assert "as any command" not in caught.value.next_step
    lease = Lease.acquire(directory)
    assert lease.former is not None
    assert lease.former.process == ELSEWHERE


def test_a_clock_that_runs_wrong_makes_nobody_silent(
    directory: SearchDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(directory, ELSEWHERE)
    silent_for(directory, 10.0)
    for wrong in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda wrong=wrong: wrong)
        with pytest.raises(LeaseError) as caught:
            Lease.acquire(directory)
        assert 10 <= last_heard(caught) < 10 + PATIENCE_SECONDS
    silent_for(directory, -5000.0)  # of a file system whose own clock was set back
    with pytest.raises(LeaseError, match="last heard of 0 s ago"):
        Lease.acquire(directory)


@pytest.mark.parametrize(
    ("job", "taken"),
    [
        (None, False),
        (ControllerJob("17", 0), False),
        (ControllerJob("17", 1), False),
        (ControllerJob("17", 2), True),
        (ControllerJob("18", 2), False),
    ],
)
def test_a_job_that_was_requeued_takes_the_lease_of_its_earlier_run(
    directory: SearchDirectory, job: ControllerJob | None, taken: bool
) -> None:
    forge(directory, ELSEWHERE, ControllerJob("17", 1))
    if taken:
        lease = Lease.acquire(directory, job=job)
        lease.release()
        holder = holder_of(directory)
        assert holder is not None
        assert (holder.process, holder.job) == (None, job), "so that its next run knows itself"
        return
    with pytest.raises(LeaseError, match="process 17 on elsewhere in job 17,"):
        Lease.acquire(directory, job=job)


def test_a_commit_ends_where_another_controller_has_taken_over(directory: SearchDirectory) -> None:
    first = Lease.acquire(directory)
    first.commit(small_tree(2))
    second = Lease.acquire(directory, take_over=True)
    with pytest.raises(LeaseError, match="another controller took over"):
        first.commit(small_tree(3))
    assert directory.read_tree() == small_tree(2)
    second.commit(small_tree(4))
    assert directory.read_tree() == small_tree(4)
    assert not [name for name in names(directory.root) if "tree.json-" in name]


def test_a_refusal_of_the_disk_is_not_taken_for_a_take_over(small_disk: SmallDisk) -> None:
    directory = new_search(small_disk.folder / "search")
    lease = Lease.acquire(directory)
    with small_disk.full(), pytest.raises(StorageError, match=small_disk.full_words):
        lease.commit(small_tree(200))
    lease.commit(small_tree(2))


def test_a_controller_that_sleeps_anywhere_in_a_commit_never_undoes_its_successors(directory: SearchDirectory) -> None:
    """It is stopped before each of its calls to the system in turn, and wakes after its successor's first commit."""

    def commit_and_tell() -> None:
        try:
            Lease.acquire(directory, take_over=True).commit(small_tree(2))
        except LeaseError:
            os._exit(OUSTED)
        os._exit(WON)

    outcomes = []
    for sleeper in asleep_at_every_step(commit_and_tell):
        successor = Lease.acquire(directory, take_over=True)
        found = directory.read_tree()
        successor.commit(small_tree(7))
        outcomes.append(sleeper.wake())
        assert outcomes[-1] in {OUSTED, WON}
        assert (outcomes[-1] == WON) <= (found == small_tree(2)), "what it wrote counts if its successor has read it"
        assert directory.read_tree() == small_tree(7)
        successor.check()
        successor.commit(small_tree(1))
    assert outcomes.count(OUSTED) > 10
    assert WON in outcomes, "where it slept after the rename"


def test_a_hidden_process_of_another_user_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    # /proc mounted with hidepid: the folder of the process is not there, and a signal is not permitted.
    def refused(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    real = Path.read_bytes

    def hiding(path: Path) -> bytes:
        if path.name == "stat":
            raise FileNotFoundError
        return real(path)

    own = ProcessIdentity.own()
    monkeypatch.setattr(Path, "read_bytes", hiding)
    assert not own.is_gone()
    monkeypatch.setattr(os, "kill", refused)
    assert not own.is_gone()


def test_without_proc_psutil_says_when_a_process_began(monkeypatch: pytest.MonkeyPatch) -> None:
    started = process_module._started_elsewhere(os.getpid())
    # not to the second: the system derives it from a clock that is being set
    assert float(started or "nan") == pytest.approx(psutil.Process().create_time(), abs=2)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process_module._started_elsewhere(child.pid) is None


def test_taking_over_ends_the_other_controller_at_its_next_commit(directory: SearchDirectory) -> None:
    first = Lease.acquire(directory)
    second = Lease.acquire(directory, take_over=True)
    for action in (first.check, first.renew):
        with pytest.raises(LeaseError, match="another controller took over"):
            action()
    first.release()
    second.renew()
    second.check()


def test_a_lease_that_somebody_removed_is_lost(directory: SearchDirectory) -> None:
    lease = Lease.acquire(directory)
    (directory.root / "lease").unlink()
    with pytest.raises(LeaseError, match="is gone"):
        lease.check()


@pytest.mark.parametrize("before", ["nothing", "stale", "released"])
def test_of_many_takers_exactly_one_wins(directory: SearchDirectory, before: str) -> None:
    for _ in range(8):
        if before == "nothing":
            (directory.root / "lease").unlink(missing_ok=True)
        elif before == "stale":
            acquire_and_die(directory)
        else:
            Lease.acquire(directory, take_over=True).release()
        assert race(directory, take_over=False) == [WON] + [LOST] * (RACERS - 1)


@pytest.mark.parametrize("damaged", [False, True])
def test_of_many_that_take_over_one_holds_it_in_the_end(directory: SearchDirectory, damaged: bool) -> None:
    for _ in range(5):
        held = Lease.acquire(directory, take_over=True)
        if damaged:
            (directory.root / "lease").unlink()
            (directory.root / "lease").write_text('{"tok')
        # Those who come so late that they see another winner take it over from that one, as they were told to.
        statuses = race(directory, take_over=True)
        assert statuses.count(WON) == 1
        assert set(statuses) <= {WON, LOST, OUSTED}
        with pytest.raises(LeaseError):
            held.check()


@pytest.mark.parametrize("before", ["nothing", "stale", "released"])
def test_a_kill_at_any_step_of_taking_it_leaves_it_to_the_next(directory: SearchDirectory, before: str) -> None:
    def prepare() -> None:
        (directory.root / "lease").unlink(missing_ok=True)
        if before == "stale":
            acquire_and_die(directory)
        elif before == "released":
            Lease.acquire(directory).release()

    steps = 0
    for step in killed_at_every_step(prepare, lambda: Lease.acquire(directory)):
        lease = Lease.acquire(directory)
        lease.check()
        with pytest.raises(LeaseError):
            Lease.acquire(directory)
        lease.check()
        steps += 1
        assert step
    assert steps >= 15


def test_a_kill_at_any_step_of_giving_it_back_leaves_it_free(directory: SearchDirectory) -> None:
    def acquire_and_release() -> None:
        Lease.acquire(directory).release()

    for _ in killed_at_every_step(lambda: None, acquire_and_release):
        Lease.acquire(directory).release()


def test_a_process_that_stalled_while_taking_it_cannot_undo_a_take_over(directory: SearchDirectory) -> None:
    acquire_and_die(directory)
    child = os.fork()
    if child == 0:
        real = os.replace

        def stalled(*paths: Any) -> None:
            os.kill(os.getpid(), signal.SIGSTOP)
            real(*paths)

        os.replace = stalled  # type: ignore[assignment]
        slow = Lease.acquire(directory)
        try:
            slow.check()
        except LeaseError:
            os._exit(LOST)
        os._exit(WON)
    os.waitpid(child, os.WUNTRACED)
    with pytest.raises(LeaseError, match=f"process {child} "):
        Lease.acquire(directory)
    lease = Lease.acquire(directory, take_over=True)
    os.kill(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == LOST
    lease.check()


def test_a_late_look_at_an_old_lease_does_not_win(directory: SearchDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire_and_die(directory)
    old = holder_of(directory)
    winner = Lease.acquire(directory)
    for path in directory.root.glob(".lease-*"):
        path.unlink()
    from llmzero_hpc.store import lease as module

    looks = iter([old, old])
    real = module.holder_of
    monkeypatch.setattr(module, "holder_of", lambda directory: next(looks, None) or real(directory))
    with pytest.raises(LeaseError):
        Lease.acquire(directory)
    winner.check()


def test_every_torn_length_is_refused_until_somebody_takes_over(directory: SearchDirectory) -> None:
    Lease.acquire(directory)
    path = directory.root / "lease"
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.unlink()
        path.write_bytes(whole[:length])
        with pytest.raises(LeaseError, match="the file is damaged"):
            Lease.acquire(directory)
        lease = Lease.acquire(directory, take_over=True)
        lease.check()
        lease.release()


def test_what_killed_processes_left_is_swept_later(directory: SearchDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmzero_hpc.store import lease as module

    leftovers = [directory.root / name for name in (".tmp-report.html-1-ab", ".lease-12")]
    for leftover in leftovers:
        leftover.touch()
    lease = Lease.acquire(directory)
    assert all(leftover.exists() for leftover in leftovers)
    monkeypatch.setattr(module, "_LEFTOVER_SECONDS", -1.0)
    lease.release()
    directory.write_tree(small_tree())
    lease = Lease.acquire(directory)
    assert not any(leftover.exists() for leftover in leftovers)
    lease.check()
    assert directory.read_tree() == small_tree()


def test_a_full_or_read_only_disk_is_one_line(small_disk: SmallDisk) -> None:
    directory = new_search(small_disk.folder / "search")
    acquire_and_die(directory)
    refusals: list[tuple[Callable[[], Any], str]] = [
        (small_disk.full, small_disk.full_words),
        (small_disk.read_only, small_disk.read_only_words),
    ]
    for condition, words in refusals:
        with condition(), pytest.raises(StorageError, match=words):
            Lease.acquire(directory)
    Lease.acquire(directory).check()


def test_a_controller_whose_disk_is_full_keeps_its_lease(small_disk: SmallDisk) -> None:
    directory = new_search(small_disk.folder / "search")
    lease = Lease.acquire(directory)
    with small_disk.full():
        lease.renew()
        lease.check()
