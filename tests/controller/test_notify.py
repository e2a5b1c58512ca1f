"""People are told once of what needs them, by a real server's word, and a tick never waits for it."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from controller_world import World, small_config

from llmzero_hpc.controller import notify
from llmzero_hpc.controller.notify import (
    DeliveryError,
    Mail,
    Moment,
    Notice,
    Notifier,
    Webhook,
    channels,
    notices,
)
from llmzero_hpc.search.node import Checkpoint, Node, NodeStatus, TransitionKind
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.sections import Notify
from llmzero_hpc.store.events import read_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory

SECRET = "/services/T000/B000/s3cr3t"  # noqa: S105 - a test's
FAILURES = 2
PATIENCE_SECONDS = 300.0


class Receiver:
    """A webhook's server: remembers what it gets, answers `status`, after `open` was set."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.open.wait(PATIENCE_SECONDS)
                status = receiver.status  # once: a test may change it at any time
                if status == 200:
                    receiver.got.append((self.path, json.loads(body)))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}{SECRET}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def texts(self) -> list[str]:
        """What was told."""
        return [body["text"] for _, body in self.got]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(notify, "_TIMEOUT_SECONDS", PATIENCE_SECONDS)
    made = Receiver()
    yield made
    made.open.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def directory(tmp_path: Path) -> SearchDirectory:
    return World(tmp_path / "search", small_config(name="far", pause_after_failures=FAILURES)).directory


def node(number: int, status: NodeStatus, **changes: Any) -> Node:
    kind = TransitionKind.EVOLVE if number else TransitionKind.SCRATCH
    made = Node(number, kind, number - 1 if number else None, seed=number, created_at=1.0, status=status)
    return replace(made, **changes)


def tree(*statuses: NodeStatus) -> Tree:
    return Tree(tuple(node(number, status) for number, status in enumerate(statuses)))


RUNNING = tree(NodeStatus.COMPLETED, NodeStatus.RUNNING)
STALLED = tree(NodeStatus.COMPLETED, NodeStatus.FAILED, NodeStatus.FAILED)
OVER = Moment(10.0, tree(NodeStatus.COMPLETED), finished=True)
QUIET = Moment(10.0, RUNNING)


def notifier(directory: SearchDirectory, receiver: Receiver, **options: Any) -> Notifier:
    return Notifier(directory, [Webhook("HOOK", {"HOOK": receiver.url})], pauses=(0.01,), **options)


def delivered(made: Notifier, moment: Moment) -> None:
    """A tick, and all that it started."""
    made.look(moment)
    made.close(PATIENCE_SECONDS)
    assert not made._under_way


def everything_in(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_nothing_is_told_of_a_search_that_runs() -> None:
    assert notices("far", QUIET, FAILURES) == []
    paused_by_a_person = replace(QUIET, paused=True)
    assert notices("far", paused_by_a_person, FAILURES) == []
    assert notices("far", Moment(10.0, Tree(), paused=True), FAILURES) == []


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (OVER, "far is over: no phase has a validation score. `llmzero-hpc report far` shows it."),
        (
            replace(OVER, tree=Tree((node(0, NodeStatus.COMPLETED, checkpoints=(Checkpoint(40, 0.5),)),))),
            "far is over: best validation 0.5000 (phase 0, step 40). `llmzero-hpc report far` shows it.",
        ),
        (
            Moment(10.0, STALLED, paused=True),
            "far is paused, as its last 2 phases failed. See `llmzero-hpc show 2`, then `llmzero-hpc resume far`.",
        ),
        (
            replace(QUIET, words={1: "JobHeldAdmin"}),
            "far: the job of phase 1 is held (JobHeldAdmin). Release it, or `llmzero-hpc cancel 1 far`.",
        ),
        (
            replace(QUIET, refusal="the compute budget does not cover another phase"),
            "far starts no further phase: the compute budget does not cover another phase.",
        ),
        (
            replace(QUIET, now=5000.0, error="slurmctld: timed out", error_since=1000.0),
            "far: the cluster has not answered for an hour (slurmctld: timed out). Jobs go on, and it is asked again.",
        ),
    ],
)
def test_what_needs_a_person_is_told_in_a_sentence(moment: Moment, words: str) -> None:
    (notice,) = notices("far", moment, FAILURES)
    assert notice.text == words
    assert "\n" not in notice.text


def test_what_is_no_news_is_not_told() -> None:
    assert notices("far", replace(QUIET, words={1: "Priority"}), FAILURES) == []
    short = replace(QUIET, now=4000.0, error="slurmctld: timed out", error_since=1000.0)
    assert notices("far", short, FAILURES) == []
    resumed = Moment(10.0, STALLED)
    assert notices("far", resumed, FAILURES) == []


def test_each_event_is_told_once_also_after_a_restart(directory: SearchDirectory, receiver: Receiver) -> None:
    first = notifier(directory, receiver)
    for _ in range(3):
        delivered(first, OVER)
    delivered(notifier(directory, receiver), OVER)
    assert receiver.got == [(SECRET, {"text": notices("far", OVER, FAILURES)[0].text})]
    told = [event.message for event in read_events(directory) if event.kind == "notify"]
    assert told == [f"by webhook: {receiver.texts[0]}"]


def test_what_comes_back_is_told_again(directory: SearchDirectory, receiver: Receiver) -> None:
    held = replace(QUIET, words={1: "JobHeldUser"})
    made = notifier(directory, receiver)
    for moment in (held, held, QUIET, held):
        delivered(made, moment)
    assert len(receiver.texts) == 2


def test_a_server_that_is_slow_delays_no_tick(directory: SearchDirectory, receiver: Receiver) -> None:
    receiver.open.clear()
    made = notifier(directory, receiver)
    for _ in range(50):
        made.look(OVER)
    assert receiver.got == [], "it has not answered, and yet all ticks were made"
    receiver.open.set()
    made.close(PATIENCE_SECONDS)
    assert len(receiver.texts) == 1


def test_a_controller_that_ends_does_not_wait_for_ever(directory: SearchDirectory, receiver: Receiver) -> None:
    receiver.open.clear()
    made = notifier(directory, receiver)
    made.look(OVER)
    made.close(0.1)
    assert made._under_way
    receiver.open.set()
    delivered(notifier(directory, receiver), OVER)
    assert receiver.texts


def test_a_server_that_fails_is_tried_again_later(directory: SearchDirectory, receiver: Receiver) -> None:
    now = 10_000.0
    receiver.status = 503
    made = notifier(directory, receiver, clock=lambda: now)
    delivered(made, OVER)
    receiver.status = 200
    delivered(made, OVER)
    delivered(notifier(directory, receiver, clock=lambda: now), OVER)
    assert receiver.got == [], "it is left alone for ten minutes, also by the next controller"
    now += 601
    delivered(notifier(directory, receiver, clock=lambda: now), OVER)
    assert len(receiver.texts) == 1
    said = [event.message for event in read_events(directory) if event.kind == "notify"]
    assert said[0].startswith("not told by webhook, as the server answered 503: far is over")
    assert len(said) == 2


def test_a_short_trouble_is_overcome_at_once(directory: SearchDirectory, receiver: Receiver) -> None:
    receiver.status = 500
    made = Notifier(directory, [Webhook("HOOK", {"HOOK": receiver.url})], pauses=(0.01,) * 500)
    made.look(OVER)
    receiver.status = 200
    made.close(PATIENCE_SECONDS)
    assert len(receiver.texts) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "$HOOK is not set where the controller runs"),
        ("hooks.example.org" + SECRET, "$HOOK is no http address where the controller runs"),
        ("http://127.0.0.1:1" + SECRET, "the server cannot be reached (Connection refused)"),
        ("http://127.0.0.1:port" + SECRET, "the server cannot be reached (InvalidURL)"),
        ("http://[" + SECRET, "the server cannot be reached (ValueError)"),
    ],
)
def test_a_url_is_never_shown(directory: SearchDirectory, url: str, words: str) -> None:
    made = Notifier(directory, channels(Notify(webhook_env="HOOK"), {"HOOK": url}), pauses=())
    delivered(made, OVER)
    (event,) = [event for event in read_events(directory) if event.kind == "notify"]
    assert event.message.startswith(f"not told by webhook, as {words}: ")
    assert "s3cr3t" not in everything_in(directory.root)


def test_a_url_that_works_is_not_on_disk(directory: SearchDirectory, receiver: Receiver) -> None:
    delivered(notifier(directory, receiver), OVER)
    assert receiver.got
    assert "s3cr3t" not in everything_in(directory.root)


def test_an_hour_without_an_answer_ends_a_delivery(
    directory: SearchDirectory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_TIMEOUT_SECONDS", 0.05)
    receiver.open.clear()
    with pytest.raises(DeliveryError, match=r"no answer within 0\.05 s"):
        Webhook("HOOK", {"HOOK": receiver.url}).send("subject", "text")


@contextmanager
def program(folder: Path, name: str, script: str) -> Iterator[str]:
    """A PATH on which there is that program only."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    yield str(folder)


@pytest.mark.parametrize("name", ["mail", "sendmail"])
def test_a_mail_is_handed_to_the_program_that_is_there(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    with program(tmp_path / "bin", name, f'echo "$@" >{out}; /bin/cat >>{out}') as path:
        Mail("me@example.org", path).send("llmzero-hpc: far", "far is over.")
    lines = out.read_text().splitlines()
    assert "me@example.org" in lines[0]
    assert "far is over." in lines
    assert any("llmzero-hpc: far" in line for line in lines)


def test_without_a_program_for_mail_one_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="neither `mail` nor `sendmail`"):
        Mail("me@example.org", str(tmp_path)).send("subject", "text")
    with (
        program(tmp_path / "bin", "mail", "exit 3") as path,
        pytest.raises(DeliveryError, match="exited with code 3"),
    ):
        Mail("me@example.org", path).send("subject", "text")


def test_both_are_told_if_both_are_wanted(directory: SearchDirectory, receiver: Receiver, tmp_path: Path) -> None:
    ways = channels(Notify(mail="me@example.org", webhook_env="HOOK"), {"HOOK": receiver.url})
    assert [way.name for way in ways] == ["mail", "webhook"]
    out = tmp_path / "out"
    with program(tmp_path / "bin", "mail", f"/bin/cat >>{out}") as path:
        made = Notifier(directory, [Mail("me@example.org", path), ways[1]], pauses=())
        delivered(made, OVER)
        delivered(made, OVER)
    assert out.read_text().splitlines() == receiver.texts


def test_whoever_lost_the_search_tells_it_and_leaves_the_record_alone(
    directory: SearchDirectory, receiver: Receiver
) -> None:
    made = notifier(directory, receiver)
    made.tell(Notice("lost-17", "far was taken over."))
    made.close(ours=False)
    assert receiver.texts == ["far was taken over."]
    assert not (directory.root / "notified.json").exists()


def test_a_record_that_is_torn_is_as_good_as_none(directory: SearchDirectory, receiver: Receiver) -> None:
    (directory.root / "notified.json").write_text('{"told": {"web')
    delivered(notifier(directory, receiver), OVER)
    assert len(receiver.texts) == 1
    assert json.loads((directory.root / "notified.json").read_text())["told"]


def test_without_a_wish_nothing_is_written_and_no_thread_runs(directory: SearchDirectory) -> None:
    made = Notifier(directory, channels(Notify(), dict(os.environ)))
    delivered(made, OVER)
    assert made._thread is None
    assert not (directory.root / "notified.json").exists()
