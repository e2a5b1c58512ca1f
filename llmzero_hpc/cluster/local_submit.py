"""The local cluster's `sbatch`: a process of its own that hands one job to submitit and goes.

It leads a session of its own, so that the job neither belongs to the controller's terminal nor leaves zombies with
the controller, and it may be left alone at any instant: whether the job was accepted is decided by one file, the
ticket, that either this process or somebody who gave up on it creates first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llmzero_hpc.cluster.phase_job import PhaseJob
from llmzero_hpc.cluster.processes import processes_of
from llmzero_hpc.store.atomic import create_bytes, json_bytes, read_bytes, write_json

_NO_LIMIT_SECONDS = 365 * 86400.0
_BACKSTOP_SECONDS = 600.0
"""The phase job keeps the time limit itself, submitit's is far behind it."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The fate of one call to this launcher. `session` is the launcher's pid, and leads the job's session for ever."""

    accepted: bool
    session: int
    decided_at: float


def read_ticket(path: Path) -> Ticket | None:
    """The ticket at `path`, None where nobody took one."""
    content = read_bytes(path)
    return None if content is None else Ticket(**json.loads(content))


def take_ticket(path: Path, *, accept: bool) -> Ticket:
    """Decide unless somebody has: the ticket that holds, which may be another's."""
    mine = Ticket(accept, os.getpid(), time.time())
    if create_bytes(path, json_bytes(asdict(mine))):
        return mine
    return read_ticket(path) or mine


def submit(request_file: Path) -> str:
    """Hand the job of a request file to submitit; why not, or an empty string.

    The folder's name is the job's, so that it stands in the command line of each of submitit's processes.
    """
    # Whatever is missing should be missed before the job counts as accepted.
    from submitit.local.local import LocalExecutor

    job = PhaseJob(**json.loads(request_file.read_text(encoding="utf-8")))
    executor = LocalExecutor(folder=request_file.parent)
    minutes = ((job.time_limit_seconds or _NO_LIMIT_SECONDS) + 2 * job.grace_seconds + _BACKSTOP_SECONDS) / 60
    executor.update_parameters(timeout_min=minutes, signal_delay_s=0)
    ticket_file = request_file.with_suffix(".ticket")
    ticket = take_ticket(ticket_file, accept=True)
    if not ticket.accepted or ticket.session != os.getpid():
        return "given up before it was accepted"
    try:
        executor.submit(job)
    except Exception as error:  # noqa: BLE001 - whatever submitit met, nobody else will tell
        if [process.pid for process in processes_of({job.folder}).get(job.folder, [])] == [os.getpid()]:
            write_json(ticket_file, asdict(replace(ticket, accepted=False)))
        return f"submitit: {error}"
    return ""


def main() -> int:
    """Submit the job whose request file is the only argument."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    problem = submit(Path(sys.argv[1]))
    if problem:
        print(problem, file=sys.stderr)  # noqa: T201 - the launcher's log
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
