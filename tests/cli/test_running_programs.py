"""Commands beside each other: interrupted, stopped, two at once, with a reader that leaves, on a disk that fills."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from command_line import PATIENCE, PROGRAM, CommandLine, held, kill_all, run, started, wait_for

from llmzero_hpc.cli import control
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmzero_hpc.search.tree import Tree

SLOW = {"step_seconds": 0.5, "failure_rate": 0}
LONG = SLOW | {"step_seconds": 30.0}
"""Of phases that are never over before a test is."""


@pytest.fixture(autouse=True)
def _patient_and_tidy(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A busy machine takes its time to stop a controller, and `stop` says so if it does not wait for that.
    monkeypatch.setattr(control, "_MOMENT_SECONDS", PATIENCE)
    yield
    kill_all(command.folder)


@pytest.fixture
def slow(command: CommandLine) -> CommandLine:
    """A search whose only phase takes seconds."""
    command.write(
        name="slow", rehearsal=SLOW, budget={"iterations": 1}, configuration={"batch_size": 32, "epochs": 1.5}
    )
    return command


def tree(command: CommandLine) -> Tree:
    return SearchDirectory.open(command.folder / "state" / "slow").read_tree()


def trains(command: CommandLine) -> bool:
    if not (command.folder / "state" / "slow" / "tree.json").exists():
        return False
    return any(node.status is NodeStatus.RUNNING for node in tree(command))


def all_steps_are_made(command: CommandLine) -> bool:
    series = SearchDirectory.open(command.folder / "state" / "slow").metrics(0)
    return bool(series.rows) and series.rows[-1].step == 24


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "stop"])
def test_a_controller_that_is_ended_leaves_its_phase_running(how: str, slow: CommandLine) -> None:
    with started("run", "search.yaml", folder=slow.folder) as first:
        wait_for(lambda: trains(slow), "the phase runs")
        with held(slow.folder):
            if how == "stop":
                said = slow("stop")
                assert said.out == "The controller of slow has stopped; running phases go on.\n"
            else:
                first.send_signal(signal.Signals[how])
            out, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0
    assert not err
    assert out.splitlines()[-2:] == [
        f"The controller stopped ({'stopped on request' if how == 'stop' else 'interrupted'}); running phases go on.",
        "  next: `llmzero-hpc run slow` takes the search up again",
    ]
    assert "No sign of the controller" in slow("status").out
    assert tree(slow)[0].status is NodeStatus.RUNNING
    wait_for(lambda: all_steps_are_made(slow), "the phase has made all steps, without a controller")


@pytest.mark.slow
def test_a_search_goes_on_after_its_controller_was_interrupted(slow: CommandLine) -> None:
    with started("run", "search.yaml", folder=slow.folder) as first:
        wait_for(lambda: trains(slow), "the phase runs")
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=PATIENCE)
    said = run("run", "slow", folder=slow.folder)
    assert said.code == 0, said
    assert "Best strategy" in said.out
    (node,) = tree(slow)
    assert node.status is NodeStatus.COMPLETED
    assert len(node.attempts) == 1


def test_of_two_controllers_the_second_gets_one_line(slow: CommandLine) -> None:
    slow.write(name="slow", rehearsal=LONG, budget={"iterations": 1})
    with started("run", "search.yaml", folder=slow.folder) as first:
        wait_for(lambda: trains(slow), "the phase runs")
        for again in (("run", "search.yaml"), ("run", "slow"), ("tick",)):
            said = slow.refused(*again)
            assert said.code == 5
            assert f"is driven by process {first.pid} on" in said.err
            assert "`llmzero-hpc stop` ends it" in said.err
        assert first.poll() is None
        assert "controller alive" in slow("status").out


def test_a_phase_is_cancelled_while_a_controller_runs(slow: CommandLine) -> None:
    slow.write(name="slow", rehearsal=LONG, budget={"iterations": 1})
    with started("run", "search.yaml", folder=slow.folder):
        wait_for(lambda: trains(slow), "the phase runs")
        said = slow("cancel", "0")
        assert said.out == "Node 0 (running) is cancelled at the controller's next tick.\n"
        wait_for(lambda: tree(slow)[0].status is NodeStatus.CANCELLED, "the phase is cancelled")


@pytest.mark.slow
def test_watching_ends_with_the_search_and_can_be_interrupted(slow: CommandLine) -> None:
    slow.write(name="slow", rehearsal=LONG, budget={"iterations": 1})
    with started("run", "search.yaml", folder=slow.folder):
        wait_for(lambda: trains(slow), "the phase runs")
        with started("logs", "0", "--follow", folder=slow.folder) as reader:
            assert "SIMULATED" in reader.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
            reader.send_signal(signal.SIGINT)
            out, err = reader.communicate(timeout=PATIENCE)
        assert reader.returncode == 130
        assert "Traceback" not in out + err
        assert slow("cancel", "0").code == 0, "so that the search ends"
        watched = run("status", "--watch", folder=slow.folder)
        assert watched.code == 0
        assert "slow  finished" in watched.out


@pytest.mark.parametrize("arguments", [("tree", "--json"), ("status",), ("logs", "0"), ("show", "0"), ("--help",)])
def test_a_reader_that_leaves_is_no_traceback(arguments: tuple[str, ...], finished: CommandLine) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` has, when it has seen enough
    try:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=finished.folder,
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of its own for root; whoever is not root gets none (False)."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "llmzero-test", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def stays_full(disk: Path) -> bool:
    """Until no byte fits any more; called again, as a file that replaces another makes room. Always true."""
    with (disk / "filler").open("ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    return True


def test_a_disk_that_is_full_while_a_search_runs(command: CommandLine) -> None:
    """A real tiny file system; skipped where none can be mounted (the store's tests limit file sizes there)."""
    # no floor of free space, or nothing would start
    command.write(name="slow", rehearsal=LONG, budget={"iterations": 1}, housekeeping={"free_gb": 0})
    disk = command.folder / "state"
    with small_disk(disk, "512k") as mounted:
        if not mounted:
            pytest.skip("needs to mount a file system")
        with started("run", "search.yaml", folder=command.folder) as controller:
            wait_for(lambda: trains(command), "the phase runs")
            wait_for(lambda: stays_full(disk) and controller.poll() is not None, "the controller has met it")
            _, err = controller.communicate(timeout=PATIENCE)
        assert controller.returncode == 8, err
        lines = err.splitlines()
        assert lines[0].startswith("error: No space left on device while ")
        assert lines[1:] == ["  next: free some space; the search goes on where it was"]
        assert command("status").code == 0
        (disk / "filler").unlink()
        assert command("tick").code == 0


@pytest.mark.slow
def test_a_controller_without_a_terminal_outlasts_a_full_disk(command: CommandLine) -> None:
    """Nobody is there to start it anew; skipped where no file system can be mounted."""
    command.write(
        name="slow",
        rehearsal=SLOW,
        budget={"iterations": 2},
        configuration={"batch_size": 32, "epochs": 1.5},
        housekeeping={"free_gb": 0},
        max_attempts=50,
        tick_seconds=0.1,
    )
    disk = command.folder / "state"
    with small_disk(disk, "2m") as mounted:
        if not mounted:
            pytest.skip("needs to mount a file system")
        pid = int(re.findall(r"process (\d+)", command("start", "search.yaml", "--on", "login").out)[0])
        wait_for(lambda: trains(command), "the phase runs")
        controller, heartbeat = psutil.Process(pid), disk / "slow" / "daemon.json"
        seen, since = b"", 0

        def looked_again_in_vain() -> bool:
            nonlocal seen, since
            stays_full(disk)
            switches = controller.num_ctx_switches().voluntary
            # a tick that is not refused leaves a heartbeat
            if (beat := heartbeat.read_bytes()) != seen:
                seen, since = beat, switches
            return switches > since + 10

        wait_for(looked_again_in_vain, "it has looked again and again")
        (disk / "filler").unlink()
        wait_for(lambda: " finished" in command("status").out.splitlines()[0], "the search is over")
        assert len(tree(command)) == 2
        assert " tried again in " in (disk / "slow" / "controller.log").read_text()


def test_a_disk_that_may_only_be_read(finished: CommandLine, command: CommandLine) -> None:
    """A real read-only file system; skipped where none can be mounted."""
    command.write(name="slow")
    disk = command.folder / "state"
    with small_disk(disk, "16m") as mounted:
        if not mounted:
            pytest.skip("needs to mount a file system")
        subprocess.run(["cp", "-r", str(finished.folder / "state" / "done"), str(disk)], check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for writing in (("run", "search.yaml"), ("run", "done"), ("tick",), ("report",), ("pause", "done"),
                        ("init", "state/new"), ("export", "state/out")):  # fmt: skip
            if writing[0] == "pause":
                assert command(*writing).code == 0  # it is over: nothing to write
                continue
            said = command.refused(*writing)
            assert said.code == 8, said
            assert "Read-only file system" in said.err
        for reading in (("status",), ("tree",), ("show", "1"), ("logs", "1")):
            assert command(*reading).code == 0
