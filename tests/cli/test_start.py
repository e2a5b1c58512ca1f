"""Controllers without a terminal: detached, killed, asked from another machine, interrupted while an agent thinks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
from command_line import PATIENCE, PROGRAM, CommandLine, has_ended, kill_all, processes, run, started, wait_for

from llmzero_hpc.cli import control
from llmzero_hpc.report.data import without_clock
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store.daemon_file import Heartbeat, read_heartbeat
from llmzero_hpc.store.lease import holder_of
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmzero_hpc.report.data import ReportData


LONG = {"step_seconds": 20.0, "failure_rate": 0}
"""Of phases that are never over before a test is."""


@pytest.fixture
def slow(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """A search of two phases of two seconds; whatever runs at the end of the test is killed."""
    # A busy machine takes its time to stop a controller, and `stop` says so if it does not wait for that.
    monkeypatch.setattr(control, "_MOMENT_SECONDS", PATIENCE)
    command.write(
        name="slow",
        rehearsal={"step_seconds": 0.1, "failure_rate": 0},
        budget={"iterations": 2},
        configuration={"batch_size": 32, "epochs": 1.5},
    )
    yield command
    kill_all(command.folder)


def directory(command: CommandLine) -> SearchDirectory:
    return SearchDirectory.open(command.folder / "state" / "slow")


def heartbeat(command: CommandLine) -> Heartbeat:
    found = read_heartbeat(directory(command))
    assert found is not None
    return found


def pid_in(said: str) -> int:
    return int(re.findall(r"runs as process (\d+) on", said)[0])


def trains(command: CommandLine) -> bool:
    return any(node.status is NodeStatus.RUNNING for node in directory(command).read_tree())


def is_over(command: CommandLine) -> bool:
    holder = holder_of(directory(command))
    return "finished" in command("status").out and (holder is None or holder.is_gone)


def is_driven(command: CommandLine) -> bool:
    holder = holder_of(directory(command))
    return holder is not None and not holder.is_gone


def result(command: CommandLine) -> ReportData:
    return without_clock(read(directory(command), metrics="all"))


def log(command: CommandLine) -> str:
    return (directory(command).root / "controller.log").read_text()


def test_a_detached_controller_outlives_its_shell_and_its_terminal(slow: CommandLine) -> None:
    """A shell in a session of its own starts it; then everything in that session is hung up and killed."""
    slow.write(name="slow", rehearsal=LONG)
    script = f"{' '.join(PROGRAM)} start search.yaml >said; kill -HUP 0; kill -KILL 0"
    subprocess.run(["sh", "-c", script], cwd=slow.folder, start_new_session=True, check=False, timeout=PATIENCE)
    said = (slow.folder / "said").read_text()
    pid = pid_in(said)
    assert "The controller of slow lives on this machine: its phases run on this machine." in said
    assert "log out as you like" in said
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGHUP)
    ticks = heartbeat(slow).ticks
    wait_for(lambda: heartbeat(slow).ticks > ticks + 3, "it ticks on")
    assert f"(pid {pid})" not in slow("status").out
    assert f"pid {pid})" in slow("status").out
    again = slow("start", "slow")
    assert again.out.splitlines()[0] == f"slow is driven already, by process {pid} on {socket.gethostname()}."
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d A controller begins on ", log(slow))
    assert "phase 0 submit" in log(slow)


@pytest.mark.slow
def test_a_controller_that_was_killed_is_started_again_and_nothing_is_lost(slow: CommandLine) -> None:
    first = pid_in(slow("start", "search.yaml").out)
    wait_for(lambda: trains(slow), "the phase runs")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: has_ended(first), "its death")
    second = pid_in(slow("start", "slow").out)
    assert second != first
    wait_for(lambda: is_over(slow), "the end of the search")
    # it says so after it has let go of the search
    wait_for(lambda: has_ended(second), "its end")
    assert log(slow).splitlines()[-1] == "The controller ends: the search is over."
    tree = directory(slow).read_tree()
    assert [len(node.attempts) for node in tree] == [1, 1]
    killed = result(slow)
    shutil.rmtree(slow.folder / "state")
    assert run("run", "search.yaml", folder=slow.folder).code == 0
    assert result(slow) == killed


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGUSR1", "stop"])
def test_a_detached_controller_ends_in_order_when_asked_to(slow: CommandLine, how: str) -> None:
    slow.write(name="slow", tick_seconds=600, rehearsal=LONG)
    pid = pid_in(slow("start", "search.yaml").out)
    if how == "stop":
        assert slow("stop").out == "The controller of slow has stopped; running phases go on.\n"
    else:
        os.kill(pid, signal.Signals[how])
    wait_for(lambda: has_ended(pid), "its end")
    holder = holder_of(directory(slow))
    assert holder is not None
    assert holder.process is None, "it has given the lease back, long before its next tick was due"
    assert "controller gone" in slow("status").out
    assert log(slow).splitlines()[-1] == (
        "The controller ends: stopped on request." if how == "stop" else "The controller ends: interrupted."
    )


@contextmanager
def silent_endpoint() -> Iterator[int]:
    """A server that takes every call and answers none; its port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield server.getsockname()[1]


def test_a_controller_whose_agent_thinks_for_long_ends_at_once(slow: CommandLine) -> None:
    pytest.importorskip("openai")
    with silent_endpoint() as port:
        agents = {"kind": "llm", "base_url": f"http://127.0.0.1:{port}/v1", "model": "slow-thinker"}
        slow.write(name="slow", agents=agents | {"timeout_seconds": 1800, "vision": False})
        pid = pid_in(slow("start", "search.yaml").out)
        wait_for(lambda: "waits for its proposal" in slow("status").out, "the model is asked for phase 1")
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: has_ended(pid), "its end")
    holder = holder_of(directory(slow))
    assert holder is not None
    assert holder.process is None


def test_a_controller_that_cannot_start_says_why(slow: CommandLine) -> None:
    slow("start", "search.yaml")
    slow("stop")
    (directory(slow).root / "tree.json").write_text('{"tr')
    said = slow.refused("start", "slow")
    assert said.code == 7
    assert "tree.json is torn" in said.err
    assert "restore it from a backup" in said.err


def test_a_mistake_is_told_before_anything_runs(slow: CommandLine) -> None:
    slow.write(name="slow", model="no/such/model", trainer="trl")
    slow.refused("start", "search.yaml")
    assert not (slow.folder / "state").exists()
    assert slow.refused("start", "nothing").code == 4
    assert slow.refused("start", "search.yaml", "--on", "moon").code == 2


def test_a_local_search_has_its_controller_here(slow: CommandLine) -> None:
    said = slow.refused("start", "search.yaml", "--on", "slurm")
    assert said.code == 3
    assert "run on this machine itself (cluster.kind: local)" in said.err
    assert "`llmzero-hpc start slow --on login`" in said.err


def test_a_dry_run_starts_nothing(slow: CommandLine) -> None:
    said = slow("start", "search.yaml", "--dry-run")
    assert "slow: everything checked, nothing started." in said.out
    assert said.out.splitlines()[-1] == (
        "The controller of slow would live on this machine: its phases run on this machine."
    )
    assert not (slow.folder / "state").exists()
    slow("start", "search.yaml")
    slow("stop")
    said = slow("start", "slow", "--on", "cron", "--dry-run")
    assert said.out == "The controller of slow would live by cron: as asked.\n"
    assert not is_driven(slow)


@contextmanager
def another_machine(name: str = "elsewhere") -> Iterator[list[str]]:
    """A prefix for commands that are to see another host name: what a shared folder looks like from there."""
    prefix = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    if os.geteuid() != 0 or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root for a host name of its own")
    yield prefix


def there(prefix: list[str], command: CommandLine, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [*prefix, *PROGRAM, *arguments],
        cwd=command.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_controller_is_seen_moved_and_stopped_from_another_login_node(slow: CommandLine) -> None:
    slow.write(name="slow", rehearsal=LONG)
    with another_machine() as prefix:
        first = pid_in(slow("start", "search.yaml").out)
        assert f"({socket.gethostname()}, pid {first})" in there(prefix, slow, "status")
        assert "is driven by" in there(prefix, slow, "run", "slow", code=5)
        said = there(prefix, slow, "start", "slow", "--on", "login")
        assert said.splitlines()[0] == f"Stopped process {first} on {socket.gethostname()}; running phases go on."
        second = pid_in(said)
        assert f"(elsewhere, pid {second})" in slow("status").out
        assert slow("start", "slow").out.splitlines()[0] == f"slow is driven already, by process {second} on elsewhere."
        assert slow("stop").out == "The controller of slow has stopped; running phases go on.\n"
        assert not is_driven(slow)


@pytest.mark.slow
def test_a_controller_elsewhere_that_went_silent_is_shown_and_taken_over_on_request(
    slow: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_MOMENT_SECONDS", 1.0)
    slow.write(name="slow", rehearsal=LONG)
    with another_machine() as prefix:
        pid = pid_in(there(prefix, slow, "start", "search.yaml"))
        os.kill(pid, signal.SIGSTOP)
        # what it was writing may be written yet
        wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "its silence")
        root = directory(slow).root
        long_ago = (root / "lease").stat().st_mtime - 400
        os.utime(root / "lease", (long_ago, long_ago))
        beat = (root / "daemon.json").read_text()
        old = re.sub(r'"beat_at": [\d.]+', lambda found: f'"beat_at": {float(found[0].split()[1]) - 400}', beat)
        (root / "daemon.json").write_text(old)
        stale = re.search(r"STALE: said nothing for (\d+) min", " ".join(slow("status").out.split()))
        assert stale is not None
        assert int(stale[1]) >= 6
        said = slow("stop")
        assert f"process {pid} on elsewhere, is asked to stop" in said.out
        heard = re.search(r"It was last heard of (\d+) s ago", said.out)
        assert heard is not None
        assert int(heard[1]) >= 400
        assert pid_in(slow("start", "slow", "--take-over").out) != pid
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: has_ended(pid), "its end")
    assert "error: another controller took over" in log(slow)
    assert is_driven(slow)
    slow("stop")
    assert len(directory(slow).read_tree()[0].attempts) == 1


def test_the_line_for_cron_ticks_and_keeps_quiet(slow: CommandLine) -> None:
    slow("start", "search.yaml")
    slow("stop")
    said = slow("start", "slow", "--on", "cron").out
    (line,) = [line for line in said.splitlines() if line.startswith("*/5 * * * * ")]
    tick = ["env", "-i", "sh", "-c", line.removeprefix("*/5 * * * * ").replace(r"\%", "%")]

    def ticked() -> bool:
        done = subprocess.run(tick, capture_output=True, text=True, check=False, cwd="/")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return directory(slow).read_tree()[0].status is NodeStatus.COMPLETED

    ticked()
    assert "by cron" in slow("status").out.splitlines()[0]
    wait_for(ticked, "the end of a phase, by ticks alone")
    with started("run", "slow", folder=slow.folder):
        wait_for(lambda: is_driven(slow), "another controller")
        before = log(slow)
        ticked()
        assert log(slow) == before
    assert "error" not in log(slow)


def test_stopping_with_the_jobs_where_no_controller_runs(slow: CommandLine) -> None:
    slow.write(name="slow", rehearsal=LONG)
    slow("start", "search.yaml")
    wait_for(lambda: trains(slow), "the phase runs")
    slow("stop")
    said = slow("stop", "--cancel-jobs")
    assert said.out.splitlines()[0] == "No controller drives slow; its jobs are cancelled."
    wait_for(lambda: not processes(slow.folder), "the end of the job")
    (node,) = directory(slow).read_tree()
    assert node.attempts[0].recalled
    assert not node.status.is_final
