"""The calls of sbatch for one name, as its submission folder shows them.

Each call is a request file and a folder of submitit's own. Two steps decide its fate, and each is one exclusive
operation of the file system, so that controllers, launchers and jobs on any machine agree on it:
- the ticket: taken by the launcher just before sbatch, or by somebody who wants that call never to be made;
- the pickle, without which a job does nothing: renamed to `<job id>_submitted.pkl` by whoever knows the id first (the
  launcher, the job's own script, or a controller that asked Slurm), or set aside for ever by whoever gives the call up.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzero_hpc.cluster.local_submit import Ticket, read_ticket, take_ticket
from llmzero_hpc.store.atomic import PRIVATE_FILE, create_bytes, json_bytes, refusals, sync_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

LOG = "launcher.log"
"""What the launchers of a name said, each in a line."""

_REQUEST = re.compile(r"request-([0-9]+)\.json")
_GIVEN_UP = "given-up"
_PICKLE_GLOB = "?" * 32 + ".pkl"
_PICKLE = re.compile(r"[0-9a-f]{32}\.pkl")
_OF_JOB = re.compile(r"([0-9]+)_(?:submitted\.pkl|submission\.sh|[0-9]+_log\.(?:out|err))")
"""Files that are there only when Slurm has given the call that id."""


class Fate(Enum):
    """What became of a call."""

    UNDECIDED = auto()
    ACCEPTED = auto()
    GIVEN_UP = auto()


@dataclass(frozen=True, slots=True)
class SubmitCall:
    """One call of sbatch, or one that will never be made."""

    request_file: Path

    @property
    def folder(self) -> Path:
        """Of submitit, and the one in which the job's script starts."""
        return self.request_file.with_suffix("")

    @property
    def ticket(self) -> Ticket | None:
        """Who decided on the call, and when; None while nobody has."""
        return read_ticket(self._ticket_file)

    @property
    def is_sent(self) -> bool:
        """Whether it was decided that sbatch is to be called."""
        ticket = self.ticket
        return ticket is not None and ticket.accepted

    def take(self, *, send: bool) -> bool:
        """Decide that sbatch is to be called (`send`), or never; whether that is the decision, made by this process."""
        ticket = take_ticket(self._ticket_file, accept=send)
        return ticket.accepted is send and ticket.session == os.getpid()

    def fate(self) -> tuple[Fate, str]:
        """What became of it, with the job's id where it was accepted.

        Raises:
            StorageError: the folder cannot be read.
        """
        ticket = self.ticket
        if ticket is not None and not ticket.accepted:
            return Fate.GIVEN_UP, ""
        names = self._names()
        if _GIVEN_UP in names:
            return Fate.GIVEN_UP, ""
        job_ids = [match[1] for name in names if (match := _OF_JOB.fullmatch(name))]
        return (Fate.ACCEPTED, job_ids[0]) if job_ids else (Fate.UNDECIDED, "")

    def accept(self, job_id: str) -> tuple[Fate, str]:
        """Let the job of that id have the pickle, unless it was decided otherwise; its fate."""
        self._decide(f"{job_id}_submitted.pkl")
        return self.fate()

    def give_up(self) -> tuple[Fate, str]:
        """No job of this call will ever run, unless it was decided otherwise; its fate."""
        self._decide(_GIVEN_UP)
        return self.fate()

    def _decide(self, name: str) -> None:
        pickles = [name for name in self._names() if _PICKLE.fullmatch(name)]
        with refusals("deciding on", self.folder):
            for pickle in pickles:
                # Gone: somebody else has decided.
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.folder / pickle, self.folder / name)  # noqa: PTH104 - as in store.atomic
                sync_folder(self.folder)

    def _names(self) -> list[str]:
        with refusals("reading", self.folder):
            try:
                return os.listdir(self.folder)  # noqa: PTH208 - names, in one look
            except FileNotFoundError:
                return []

    @property
    def _ticket_file(self) -> Path:
        return self.request_file.with_suffix(".ticket")


def calls_in(folder: Path) -> list[SubmitCall]:
    """The calls that were ever prepared for a name, in order."""
    with refusals("reading", folder):
        try:
            names = os.listdir(folder)  # noqa: PTH208 - as above
        except FileNotFoundError:
            return []
    numbers = sorted(int(match[1]) for name in names if (match := _REQUEST.fullmatch(name)))
    return [SubmitCall(folder / f"request-{number}.json") for number in numbers]


def prepare(folder: Path, number: int, request: Mapping[str, Any]) -> SubmitCall | None:
    """The call of that number; None where another controller has prepared it."""
    file = folder / f"request-{number}.json"
    return SubmitCall(file) if create_bytes(file, json_bytes(request), PRIVATE_FILE) else None


def pickup(folder: Path) -> str:
    """The line of a job's script that takes the pickle where nobody else has done it yet; no error where one has."""
    place = shlex.quote(str(folder))
    return f'mv -n {place}/{_PICKLE_GLOB} {place}/"$SLURM_JOB_ID"_submitted.pkl 2>/dev/null || true'
