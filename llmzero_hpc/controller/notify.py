"""Telling people away from their terminals that a search ended, stalls, or needs a decision: by mail or webhook.

What there is to tell follows from the state of the search, so that a kill forgets nothing; what has been told is on
disk, so that a restart does not repeat it. A notice is told once while its cause lasts, and again if it comes back.
Delivery has a thread of its own and never delays a tick.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.store import events
from llmzero_hpc.store.atomic import read_bytes, write_bytes
from llmzero_hpc.store.records import decoded, encoded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.sections import Notify
    from llmzero_hpc.store.search_directory import SearchDirectory

_UNREACHABLE_SECONDS = 3600.0
_TIMEOUT_SECONDS = 10.0
_PAUSES_SECONDS = (1.0, 5.0)
"""Between the tries of one delivery."""
_RETRY_SECONDS = 600.0
_MAIL_FOLDERS = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/lib")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell; the same `key` is told once. `text` is one line."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A search after a tick, as far as there may be something to tell.

    Attributes:
        now: seconds since the epoch.
        tree: the tree.
        finished: the search is over.
        paused: no new phases start.
        refusal: why no further phase may start; empty where one may.
        words: what the cluster says of phases that wait, by node.
        error, error_since: why the cluster cannot be asked, and since when; empty and None when it can.
    """

    now: float
    tree: Tree
    finished: bool = False
    paused: bool = False
    refusal: str = ""
    words: Mapping[int, str] = field(default_factory=dict)
    error: str = ""
    error_since: float | None = None


def notices(name: str, moment: Moment, failures: int) -> list[Notice]:
    """What there is to tell of a search at a moment; `failures` in a row pause it. Pure."""
    if moment.finished:
        return [Notice("over", f"{name} is over: {_result(moment.tree)} `llmzero-hpc report {name}` shows it.")]
    found = []
    newest = [node for node in moment.tree if node.status.is_final][-failures:]
    if moment.paused and len(newest) == failures and all(node.status is NodeStatus.FAILED for node in newest):
        text = f"{name} is paused, as its last {failures} phases failed. See `llmzero-hpc show {newest[-1].id}`, then"
        found.append(Notice(f"stalled-{newest[-1].id}", f"{text} `llmzero-hpc resume {name}`."))
    for node_id, words in moment.words.items():
        if "held" in words.lower():
            text = f"{name}: the job of phase {node_id} is held ({words}). Release it, or"
            found.append(Notice(f"held-{node_id}", f"{text} `llmzero-hpc cancel {node_id} {name}`."))
    if moment.refusal and moment.tree.active():
        found.append(Notice(f"refused-{moment.refusal}", f"{name} starts no further phase: {moment.refusal}."))
    if moment.error_since is not None and moment.now - moment.error_since > _UNREACHABLE_SECONDS:
        text = f"{name}: the cluster has not answered for an hour ({moment.error}). Jobs go on, and it is asked again."
        found.append(Notice("unreachable", text))
    return found


def _result(tree: Tree) -> str:
    best = tree.best()
    if best is None or best.best is None:
        return "no phase has a validation score."
    test = tree.evaluation.score if tree.evaluation else None
    tested = "" if test is None else f", test {test:.4f}"
    return f"best validation {best.best.score:.4f} (phase {best.id}, step {best.best.step}){tested}."


class DeliveryError(Exception):
    """Why somebody could not be told, one line without secrets."""


class Channel(Protocol):
    """A way to tell somebody. `send` is called from another thread, and may take its time."""

    name: str

    def send(self, subject: str, text: str) -> None:
        """Tell.

        Raises:
            DeliveryError: it did not work.
        """


class Webhook:
    """A URL that takes `{"text": ...}`. The URL is a secret: it is in the environment only, and in no message."""

    name = "webhook"

    def __init__(self, variable: str, environment: Mapping[str, str]) -> None:
        self._variable = variable
        self._url = environment.get(variable, "")

    def send(self, subject: str, text: str) -> None:  # noqa: ARG002 - the text says it all
        """Post it."""
        import http.client
        import urllib.error
        import urllib.request

        if not self._url.startswith(("https://", "http://")):
            what = "is no http address" if self._url else "is not set"
            raise DeliveryError(f"${self._variable} {what} where the controller runs")
        headers = {"Content-Type": "application/json", "User-Agent": "llmzero-hpc"}
        try:
            request = urllib.request.Request(self._url, json.dumps({"text": text}).encode(), headers)  # noqa: S310
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310 - the scheme is checked
                pass
        except urllib.error.HTTPError as error:
            raise DeliveryError(f"the server answered {error.code}") from None
        except TimeoutError:
            raise DeliveryError(f"the server gave no answer within {_TIMEOUT_SECONDS:g} s") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            # The words of some of these hold the URL.
            reason = getattr(error, "reason", error)
            known = reason.strerror if isinstance(reason, OSError) else ""
            raise DeliveryError(f"the server cannot be reached ({known or type(reason).__name__})") from None


class Mail:
    """An address, written to with the `mail` or `sendmail` of this machine."""

    name = "mail"

    def __init__(self, address: str, path: str = os.pathsep.join(_MAIL_FOLDERS)) -> None:
        self._address = address
        self._path = path

    def send(self, subject: str, text: str) -> None:
        """Hand it over."""
        if program := shutil.which("mail", path=self._path):
            command, message = [program, "-s", subject, self._address], f"{text}\n"
        elif program := shutil.which("sendmail", path=self._path):
            command = [program, "-i", self._address]
            message = f"To: {self._address}\nSubject: {subject}\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"
        else:
            raise DeliveryError("this machine has neither `mail` nor `sendmail`")
        try:
            done = subprocess.run(
                command,
                input=message.encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeliveryError(f"`{program}` failed ({type(error).__name__})") from None
        if done.returncode:
            raise DeliveryError(f"`{program}` exited with code {done.returncode}")


def channels(settings: Notify, environment: Mapping[str, str]) -> list[Channel]:
    """Who is to be told."""
    found: list[Channel] = []
    if settings.mail is not None:
        found.append(Mail(settings.mail))
    if settings.webhook_env is not None:
        found.append(Webhook(settings.webhook_env, environment))
    return found


@dataclass(frozen=True, slots=True)
class _Told:
    """The content of `notified.json`: when each notice was told, or last tried in vain, by channel and key."""

    told: dict[str, float] = field(default_factory=dict)
    failed: dict[str, float] = field(default_factory=dict)


class Notifier:
    """Tells what there is to tell, once, and without ever waiting for it. Used by the holder of the lease."""

    def __init__(
        self,
        directory: SearchDirectory,
        ways: list[Channel],
        clock: Callable[[], float] = time.time,
        pauses: tuple[float, ...] = _PAUSES_SECONDS,
    ) -> None:
        config = directory.record.config
        self._directory = directory
        self._name = config.name
        self._failures = config.pause_after_failures
        self._ways = ways
        self._clock = clock
        self._pauses = pauses
        self._told = decoded(_Told, read_bytes(_file(directory))) or _Told()
        self._under_way: dict[str, Notice] = {}
        self._work: queue.SimpleQueue[tuple[str, Channel, Notice]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def look(self, moment: Moment) -> None:
        """Take what was delivered, and start what is due.

        Raises:
            StorageError: what was told cannot be noted.
        """
        if not self._ways:
            return
        self._collect()
        holding = notices(self._name, moment, self._failures)
        keys = {_id(way, notice) for way in self._ways for notice in holding}
        self._keep(
            _Told(
                {key: when for key, when in self._told.told.items() if key in keys},
                {key: when for key, when in self._told.failed.items() if key in keys},
            )
        )
        for notice in holding:
            self.tell(notice)

    def tell(self, notice: Notice) -> None:
        """Start telling something, unless it was told, is being told, or was tried in vain a short while ago."""
        for way in self._ways:
            key = _id(way, notice)
            tried = self._told.failed.get(key)
            if key in self._told.told or key in self._under_way or (tried and self._clock() - tried < _RETRY_SECONDS):
                continue
            self._under_way[key] = notice
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver, daemon=True, name="notify")
                self._thread.start()
            self._work.put((key, way, notice))

    def close(self, seconds: float = 20.0, *, ours: bool = True) -> None:
        """Give what is under way a last while. `ours` is false where another holds the lease: it keeps the record."""
        until = time.monotonic() + seconds
        while self._under_way and time.monotonic() < until:
            if not ours:
                self._under_way.pop(self._results.get(timeout=max(0.01, until - time.monotonic()))[0], None)
                continue
            self._collect()
            time.sleep(0.02)

    def _deliver(self) -> None:
        while True:
            key, way, notice = self._work.get()
            problem = ""
            for pause in (*self._pauses, None):
                try:
                    way.send(f"llmzero-hpc: {self._name}", notice.text)
                    problem = ""
                    break
                except DeliveryError as error:
                    problem = str(error)
                if pause is not None:
                    time.sleep(pause)
            self._results.put((key, problem))

    def _collect(self) -> None:
        told, failed = dict(self._told.told), dict(self._told.failed)
        while True:
            try:
                key, problem = self._results.get_nowait()
            except queue.Empty:
                break
            notice = self._under_way.pop(key)
            way = key.partition(":")[0]
            if not problem:
                told[key] = self._clock()
                failed.pop(key, None)
                events.append_event(self._directory, self._clock(), "notify", f"by {way}: {notice.text}")
            elif failed.get(key) is None:
                failed[key] = self._clock()
                events.append_event(
                    self._directory, self._clock(), "notify", f"not told by {way}, as {problem}: {notice.text}"
                )
            else:
                failed[key] = self._clock()
        self._keep(_Told(told, failed))

    def _keep(self, told: _Told) -> None:
        if told != self._told:
            write_bytes(_file(self._directory), encoded(told))
            self._told = told


def _id(way: Channel, notice: Notice) -> str:
    return f"{way.name}:{notice.key}"


def _file(directory: SearchDirectory) -> Path:
    return directory.root / "notified.json"
