"""A search's own language model server as a process of this machine."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from typing import TYPE_CHECKING

import psutil
import pytest
from polling import until
from served import PATIENCE_SECONDS, authors, files_with, program, run, search, server_of, stand_in, tick_until

from llmzero_hpc.cluster.processes import JOB_VARIABLE
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.controller.server import Server
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store.agent_calls import CallLog
from llmzero_hpc.store.daemon_file import read_heartbeat

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.server_directory import ServerDirectory

pytestmark = pytest.mark.slow


def processes(server: ServerDirectory) -> list[psutil.Process]:
    """Live processes of its jobs."""
    found = []
    for process in psutil.process_iter():
        try:
            folder = process.environ().get(JOB_VARIABLE, "")
            if folder.startswith(str(server.path)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def wait_until_gone(server: ServerDirectory, seconds: float = PATIENCE_SECONDS) -> None:
    until(lambda: not processes(server), lambda: str([left.cmdline() for left in processes(server)]), seconds)


@pytest.fixture(autouse=True)
def quick_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmzero_hpc.controller.desk._FIRST_WAIT", 600.0)
    # Only the news that the server is up brings a question forward.
    monkeypatch.setattr("llmzero_hpc.controller.desk._LONGEST_WAIT", 600.0)


def test_a_search_serves_its_model_and_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    directory = search(tmp_path / "state" / "served", stand_in(tmp_path), budget={"iterations": 3, "device_hours": 1})
    server = server_of(directory)
    tree = run(directory)
    assert authors(tree) == {"Tiny Model"}
    assert server.newest() == 1
    wait_until_gone(server)
    assert server.used_at() is None

    key = server.key()
    assert len(key) >= 32
    assert files_with(key, tmp_path) == {"key"}
    assert stat.S_IMODE((server.path / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o700
    log = server.attempt(1).trainer_log.read_text()
    assert "serving with -m vllm.entrypoints.openai.api_server --model" in log
    assert "--max-model-len 4096" in log

    [call] = [call for call in CallLog(directory).calls(1) if call.agent == "proposer"]
    assert not (call.folder / "failures.jsonl").exists(), "it is asked when it is up, not before"
    beat = read_heartbeat(directory)
    assert beat is not None
    assert beat.server_device_seconds == pytest.approx(server.charged(f"served-{directory.record.token}"), abs=120)
    assert beat.server_device_seconds > 0
    compute = next(line for line in read(directory).budget if line.name == "compute")
    trained = tree.device_seconds()
    assert compute.used * 3600 == pytest.approx(trained + beat.server_device_seconds)


def test_a_server_that_is_killed_comes_back_and_training_does_not_notice(tmp_path: Path) -> None:
    directory = search(
        tmp_path / "state" / "served",
        stand_in(tmp_path),
        rehearsal={"step_seconds": 0.3, "train_rows": 64, "failure_rate": 0.0},
        budget={"iterations": 2},
    )
    server = server_of(directory)
    with Daemon(directory) as daemon:
        tick_until(daemon, lambda: server.has_been_up(1) if server.newest() else False)
        before = server.announcement(1)
        for process in processes(server):
            with contextlib.suppress(psutil.NoSuchProcess):  # some end with those before them
                process.kill()
        tick_until(daemon, lambda: server.newest() == 2 and server.has_been_up(2))
        status = read(directory).controller.server
        tick_until(daemon, lambda: daemon.tick().finished)
    after = server.announcement(2)
    assert before
    assert after
    assert before[0].port != after[0].port
    assert server.name in status
    tree = directory.read_tree()
    assert authors(tree) == {"Tiny Model"}
    assert [len(node.attempts) for node in tree] == [1, 1]
    ending = server.ending(1)
    assert ending is not None
    assert 0 < ending.device_seconds < PATIENCE_SECONDS
    wait_until_gone(server)


def test_two_searches_share_one(tmp_path: Path) -> None:
    serve = stand_in(tmp_path)
    one = search(tmp_path / "state" / "one", serve, iterations=2)
    two = search(tmp_path / "state" / "two", serve, iterations=2)
    alone = search(tmp_path / "state" / "alone", {**serve, "share": False})
    server = server_of(one)
    assert server.path == server_of(two).path != server_of(alone).path
    with Daemon(one) as first, Daemon(two) as second:
        tick_until(second, lambda: server.newest() == 1)
        tick_until(first, lambda: first.tick().finished)
        assert processes(server), "the other search needs it"
        tick_until(second, lambda: second.tick().finished)
    wait_until_gone(server)
    assert server.newest() == 1
    assert authors(one.read_tree()) == authors(two.read_tree()) == {"Tiny Model"}
    tokens = {each.record.config.name: f"{each.record.config.name}-{each.record.token}" for each in (one, two)}
    charged = {name: server.charged(token) > 0 for name, token in tokens.items()}
    assert sorted(charged.values()) == [False, True], "the one that started it pays"


def test_controllers_that_start_at_once_start_one(tmp_path: Path) -> None:
    serve = stand_in(tmp_path)
    searches = [search(tmp_path / "state" / f"s{number}", serve) for number in range(4)]
    keepers = [Server(directory, lambda: None) for directory in searches]
    server = server_of(searches[0])
    barrier = threading.Barrier(len(keepers))

    def begin(keeper: Server) -> None:
        barrier.wait()
        keeper.keep(None)

    threads = [threading.Thread(target=begin, args=(keeper,)) for keeper in keepers]
    for thread in threads:
        thread.start()
    until(
        lambda: server.newest() and server.has_been_up(1) and all("answers" in keeper.words for keeper in keepers),
        lambda: str([keeper.words for keeper in keepers]),
        PATIENCE_SECONDS,
    )
    assert len([p for p in processes(server) if "stand_in_server.py" in " ".join(p.cmdline())]) == 1
    assert server.newest() == 1
    for keeper in keepers[1:]:
        keeper.leave()
    assert processes(server)
    keepers[0].leave()
    wait_until_gone(server)


def test_without_controllers_it_ends_by_itself(tmp_path: Path) -> None:
    directory = search(tmp_path / "state" / "served", {**stand_in(tmp_path), "idle_minutes": 0.5}, iterations=2)
    server = server_of(directory)
    with Daemon(directory) as daemon:
        tick_until(daemon, lambda: server.newest() and server.has_been_up(1))
    assert processes(server), "it outlives a controller"
    wait_until_gone(server)
    assert "nobody uses this server" in server.attempt(1).trainer_log.read_text()
    assert authors(run(directory)) == {"Tiny Model"}
    assert server.newest() == 2


@pytest.mark.parametrize("fallback", ["wait", "playbook"])
def test_a_server_that_cannot_start(tmp_path: Path, fallback: str) -> None:
    broken = {**stand_in(tmp_path), "python": program(tmp_path / "broken", "echo CUDA is out of order >&2; exit 3;")}
    directory = search(tmp_path / "state" / "served", broken, iterations=2, agents={"fallback": fallback})
    server = server_of(directory)
    with Daemon(directory) as daemon:
        if fallback == "wait":
            tick_until(daemon, lambda: server.newest() == 3)
            tick_until(daemon, lambda: "CUDA is out of order" in read(directory).controller.server)
            node = directory.read_tree()[1]
            assert node.status is NodeStatus.PLANNED
            assert "is not up" in daemon.tick().waiting_for
        else:
            tick_until(daemon, lambda: daemon.tick().finished)
            assert authors(directory.read_tree()) == {"playbook"}
    server.leave(f"served-{directory.record.token}")
    wait_until_gone(server)


def test_the_key_is_not_in_the_environment_of_what_starts_the_job(tmp_path: Path) -> None:
    directory = search(tmp_path / "state" / "served", stand_in(tmp_path))
    server = server_of(directory)
    with Daemon(directory) as daemon:
        tick_until(daemon, lambda: server.newest() and server.has_been_up(1))
        key = server.key()
        assert key not in " ".join(os.environ.values())
        holders = {
            process.cmdline()[1].rpartition("/")[2] for process in processes(server) if key in str(process.environ())
        }
        assert holders == {"stand_in_server.py"}
        assert not [process for process in processes(server) if key in " ".join(process.cmdline())]
        keeper = Server(directory, lambda: None)
        keeper.leave()
    wait_until_gone(server)
