"""What sacct knows of the jobs of a search, asked as rarely as can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import Charge, JobObservation
from llmzero_hpc.cluster.slurm_books import BOOK_FORMAT, Run, charge_of, last_word, parse_books
from llmzero_hpc.cluster.slurm_queue import FIELD_END
from llmzero_hpc.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from llmzero_hpc.cluster.slurm_commands import SlurmCommands
    from llmzero_hpc.cluster.slurm_queue import QueuedJob
    from llmzero_hpc.search.node import Job

_SECONDS_BETWEEN_TRIES = 3600.0
"""Of a cluster that keeps no accounts."""
_CLOCKS_APART_SECONDS = 3600.0
"""How far the clocks of a login node and of the accounting may be apart."""
_NO_ACCOUNTS = "accounting storage is disabled"


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the books said of a job, which had been requeued so often. `ending` is None while it was live."""

    restarts: int
    ending: JobObservation | None
    charge: Charge


class Accounting:
    """The books, as far as they were asked for. A failure of sacct leaves everything as it was.

    `is_kept` is false on clusters without accounting.
    """

    def __init__(self, commands: SlurmCommands, clock: Callable[[], float]) -> None:
        self._commands = commands
        self._clock = clock
        self._disabled_at: float | None = None
        self._entries: dict[str, _Entry] = {}

    @property
    def is_kept(self) -> bool:
        """Whether there are books, as far as is known."""
        return self._disabled_at is None

    def update(self, jobs: Sequence[Job], queued: Mapping[str, QueuedJob]) -> None:
        """Ask for jobs that the queue shows as ended or not at all, and for those requeued since they were asked for.

        Those with a final charge are not asked for again.
        """
        names = {job.name for job in jobs}
        self._entries = {name: entry for name, entry in self._entries.items() if name in names}
        wanted = [job for job in jobs if self._is_due(job, queued.get(job.name))]
        if not wanted:
            return
        rows = self._ask(f"--jobs={','.join(job.job_id for job in wanted)}")
        if rows is None:
            return
        found: dict[tuple[str, str], list[Run]] = {}
        for run in rows:
            found.setdefault((run.name, run.job_id), []).append(run)
        for job in wanted:
            entry = _entry(found.get((job.name, job.job_id), []), queued.get(job.name))
            if entry is not None:
                self._entries[job.name] = entry

    def ending(self, job: Job) -> JobObservation | None:
        """How a job ended, as it was last seen; None where the books knew of no end, or the queue of none."""
        entry = self._entries.get(job.name)
        return entry.ending if entry else None

    def charge(self, job: Job) -> Charge | None:
        """What a job cost as it was last seen; None where the books said nothing."""
        entry = self._entries.get(job.name)
        return entry.charge if entry else None

    def job_id(self, name: str, since: float, others: Collection[str]) -> str:
        """Id of the job of that name submitted since then, but for those that start in folders of these names."""
        start = f"--starttime=uts{int(since - _CLOCKS_APART_SECONDS)}"
        runs = [run for run in self._ask(f"--name={name}", start) or () if Path(run.folder).name not in others]
        return next((run.job_id for run in runs if run.name == name), "")

    def _is_due(self, job: Job, row: QueuedJob | None) -> bool:
        entry = self._entries.get(job.name)
        if row is not None and row.is_live:
            return row.restarts > (entry.restarts if entry else 0)
        return entry is None or not entry.charge.final

    def _ask(self, *options: str) -> list[Run] | None:
        if self._disabled_at is not None and self._clock() - self._disabled_at < _SECONDS_BETWEEN_TRIES:
            return None
        command = ("sacct", "--noheader", "--parsable", f"--delimiter={FIELD_END}", "--allocations", "--duplicates")
        try:
            output = self._commands.ask("slurmdbd", *command, f"--format={BOOK_FORMAT}", *options)
            runs = parse_books(output)
        except ClusterError as error:
            if _NO_ACCOUNTS in error.message:
                self._disabled_at = self._clock()
            return None
        except ValueError as error:
            self._commands.failed("slurmdbd", f"sacct's answer cannot be read: {error}")
            return None
        self._disabled_at = None
        return runs


def _entry(runs: Sequence[Run], row: QueuedJob | None) -> _Entry | None:
    """What the books and the queue say together; None while the books lack a job that must be in them."""
    if not runs and (row is None or row.is_live or row.hosts):
        return None
    ending = last_word(runs) if runs and (row is None or not row.is_live) else None
    return _Entry(row.restarts if row else 0, ending, charge_of(runs, row))
