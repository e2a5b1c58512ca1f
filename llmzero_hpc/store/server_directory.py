"""A language model's server on disk: `servers/<name>/` beside the searches that use it.

Each file is written once, by whoever comes first, or belongs to one writer. So the controllers of several searches may
keep one server without a lease: the attempt of a number is intended once, submitted under a name of its own, and ended
once. What a run of the job writes carries its restart, and only the newest run's counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.sections import LanguageModelAgents, SlurmClusterConfig
from llmzero_hpc.store.atomic import (
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    create_bytes,
    make_folder,
    read_bytes,
    refusals,
    remove,
    write_bytes,
)
from llmzero_hpc.store.phase_directory import AttemptDirectory, PhaseDirectory
from llmzero_hpc.store.records import decoded, encoded

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

_LONGEST_NAME = 30


@dataclass(frozen=True, slots=True)
class ServerIntent:
    """A job that is to be submitted, written before the cluster is asked.

    Attributes:
        name: of the job, unique for ever.
        owner: the search that starts it, and is charged for it.
        intended_at: seconds since the epoch.
        devices: GPUs, or CPUs without any, that it is charged for.
    """

    name: str
    owner: str
    intended_at: float
    devices: int


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """The cluster's answer to an intent."""

    job_id: str
    submitted_at: float


@dataclass(frozen=True, slots=True)
class ServerEnding:
    """How an attempt ended; `device_seconds` is what it cost."""

    ending: str
    ended_at: float
    device_seconds: float
    hosts: str = ""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where one run of the job listens, since when, and since when it has answered there (None: not yet)."""

    restart: int
    host: str
    port: int
    started_at: float
    up_at: float | None = None

    @property
    def base_url(self) -> str:
        """Of the API."""
        return f"http://{self.host}:{self.port}/v1"


@dataclass(frozen=True, slots=True)
class _User:
    search: str
    host: str
    pid: int


class ServerDirectory:
    """The folder of one server, there or not."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @classmethod
    def of(cls, directory: SearchDirectory) -> ServerDirectory | None:
        """The server that a search asks for; None where it asks for none. Equal wishes lead to the same folder."""
        record = directory.record
        agents = record.config.agents
        if not isinstance(agents, LanguageModelAgents) or agents.serve is None:
            return None
        return cls(directory.root.parent / "servers" / _name(record, agents))

    @property
    def name(self) -> str:
        """Of the server."""
        return self.path.name

    def create(self) -> None:
        """Make the folder; being there already is fine. Raises StorageError."""
        make_folder(self.path, PRIVATE_FOLDER)
        make_folder(self._users)

    def key(self) -> str:
        """The secret that the server asks for, made where there is none. Raises StorageError."""
        file = self.path / "key"
        create_bytes(file, secrets.token_urlsafe(32).encode(), PRIVATE_FILE)
        return (read_bytes(file) or b"").decode()

    # Users

    def use(self, user: str, search: Path) -> None:
        """Note, or confirm, that a search needs the server. Raises StorageError."""
        file = self._users / user
        with refusals("noting", file):
            if not file.exists():
                write_bytes(file, encoded(_User(str(search), socket.gethostname(), os.getpid())))
            os.utime(file)

    def leave(self, user: str) -> None:
        """A search needs it no more. Raises StorageError."""
        remove(self._users / user)

    def used_at(self) -> float | None:
        """When a search last said that it needs the server, seconds since the epoch; None where none does.

        Raises:
            StorageError: it cannot be read.
        """
        with refusals("reading", self._users):
            try:
                times = [entry.stat().st_mtime for entry in self._users.iterdir() if not entry.name.startswith(".")]
            except FileNotFoundError:
                return None
        return max(times, default=None)

    # Attempts

    def newest(self) -> int:
        """Number of the newest attempt; 0 before the first. Raises StorageError."""
        attempts = PhaseDirectory(self.path).attempts()
        return int(attempts[-1].path.name) if attempts else 0

    def attempt(self, number: int) -> AttemptDirectory:
        """Its folder."""
        return PhaseDirectory(self.path).attempt(number)

    def intend(self, number: int, intent: ServerIntent) -> None:
        """Make an attempt, unless somebody has. Raises StorageError."""
        self.attempt(number).create()
        create_bytes(self.attempt(number).path / "intent.json", encoded(intent))

    def intent(self, number: int) -> ServerIntent | None:
        """Why there is that attempt; None where its maker was killed. Raises StorageError."""
        return decoded(ServerIntent, read_bytes(self.attempt(number).path / "intent.json"))

    def accept(self, number: int, job: AcceptedJob) -> None:
        """Note the job of an attempt. Raises StorageError."""
        create_bytes(self.attempt(number).path / "job.json", encoded(job))

    def accepted(self, number: int) -> AcceptedJob | None:
        """The job of an attempt, once it has one. Raises StorageError."""
        return decoded(AcceptedJob, read_bytes(self.attempt(number).path / "job.json"))

    def end(self, number: int, ending: ServerEnding) -> None:
        """Note the end of an attempt, unless somebody has. Raises StorageError."""
        create_bytes(self.attempt(number).path / "ended.json", encoded(ending))

    def ending(self, number: int) -> ServerEnding | None:
        """How an attempt ended; None while it has not. Raises StorageError."""
        return decoded(ServerEnding, read_bytes(self.attempt(number).path / "ended.json"))

    def announcement(self, number: int) -> tuple[Announcement, float] | None:
        """The word of an attempt's newest run, and when it was last confirmed, by the clock of its machine.

        Raises:
            StorageError: it cannot be read.
        """
        runs = self._announcements(number)
        return runs[-1] if runs else None

    def has_been_up(self, number: int) -> bool:
        """Whether a run of the attempt ever answered. Raises StorageError."""
        return any(said.up_at is not None for said, _ in self._announcements(number))

    def device_seconds(self, number: int) -> float:
        """What an attempt has cost: of all its runs, up to their last sign of life. Raises StorageError."""
        intent, ending = self.intent(number), self.ending(number)
        if ending is not None:
            return ending.device_seconds
        seconds = sum(max(0.0, beat - said.started_at) for said, beat in self._announcements(number))
        return seconds * intent.devices if intent else 0.0

    def charged(self, owner: str) -> float:
        """Device-seconds of all jobs that a search started. Raises StorageError."""
        numbers = range(1, self.newest() + 1)
        return sum(self.device_seconds(n) for n in numbers if (made := self.intent(n)) and made.owner == owner)

    @property
    def _users(self) -> Path:
        return self.path / "users"

    def _announcements(self, number: int) -> list[tuple[Announcement, float]]:
        folder = self.attempt(number).path
        found = []
        with refusals("reading", folder):
            try:
                files = [entry for entry in folder.iterdir() if re.fullmatch(r"address(-\d+)?\.json", entry.name)]
            except FileNotFoundError:
                return []
            for file in files:
                said = decoded(Announcement, read_bytes(file))
                if said is not None:
                    found.append((said, file.stat().st_mtime))
        return sorted(found, key=lambda pair: pair[0].restart)


def announce(attempt: AttemptDirectory, said: Announcement) -> Path:
    """Say where a run listens, in a file of its own; returns it, for `os.utime` to confirm. Raises StorageError."""
    file = attempt.path / (f"address-{said.restart}.json" if said.restart else "address.json")
    write_bytes(file, encoded(said))
    return file


def _name(record: SearchRecord, agents: LanguageModelAgents) -> str:
    """Of the folder: equal for equal wishes on the same cluster."""
    serve, cluster = agents.serve, record.config.cluster
    if serve is None:
        raise ValueError("it asks for no server")
    wishes = [serve.model_dump(mode="json"), agents.model, cluster.kind]
    if isinstance(cluster, SlurmClusterConfig):
        wishes += [serve.profile or cluster.profile, str(cluster.profiles), str(cluster.templates)]
    if not serve.share:
        wishes += [record.config.name, record.token]
    digest = hashlib.sha256(json.dumps(wishes, sort_keys=True).encode()).hexdigest()[:6]
    readable = re.sub(r"[^a-z0-9]+", "_", serve.model.name.lower()).strip("_")[:_LONGEST_NAME]
    return f"{readable or 'model'}-{digest}"
