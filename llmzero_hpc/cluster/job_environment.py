"""What a job's environment says about the job, and how much of it the trainer gets to see."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SCRUBBED_PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "PMI", "PMIX_", "SUBMITIT_")
"""A trainer that sees these takes itself for a rank of the outer job."""
KEPT = frozenset({"SLURM_CONF"})
ATTEMPT_VARIABLE, RESTART_VARIABLE = "LLMZERO_ATTEMPT", "LLMZERO_RESTART"
"""What the trainer puts into each of its metric rows."""
NODES_VARIABLE, HEAD_VARIABLE = "LLMZERO_NODES", "LLMZERO_HEAD"
"""Number of the job's machines, and the address of the one on which the trainer's command runs."""

_LOOPBACK = "127.0.0.1"


def scrubbed(environment: Mapping[str, str], secrets: Collection[str] = ()) -> dict[str, str]:
    """An environment without the traces of the job that surrounds it, and without the variables called `secrets`."""
    return {
        key: value
        for key, value in environment.items()
        if key in KEPT or not (key in secrets or key.startswith(SCRUBBED_PREFIXES))
    }


def restart_count() -> int:
    """How often Slurm requeued this job; 0 elsewhere."""
    return _number("SLURM_RESTART_COUNT") or 0


def rank() -> int:
    """Which of the job's processes this is, one a machine; 0 is the head, and what runs alone."""
    return _number("SLURM_PROCID") or 0


def job_id() -> str:
    """Slurm's number of this job; empty elsewhere."""
    return os.environ.get("SLURM_JOB_ID", "")


def cpus_here() -> int:
    """CPUs of this machine that the job may use."""
    return _number("SLURM_CPUS_ON_NODE") or len(os.sched_getaffinity(0))


def own_address(nodes: int) -> str:
    """The IPv4 address by which the other machines of the job reach this one."""
    return _LOOPBACK if nodes == 1 else reachable_address()


def reachable_address() -> str:
    """The IPv4 address by which other machines of the cluster reach this one."""
    import socket

    for name in filter(None, (os.environ.get("SLURMD_NODENAME"), socket.gethostname())):
        try:
            found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET)}
        except OSError:
            continue
        # Debian writes the machine's own name beside 127.0.1.1 into /etc/hosts.
        reachable = sorted(address for address in found if not address.startswith("127."))
        if reachable:
            return reachable[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which interface leads outside
            return str(probe.getsockname()[0])
        except OSError:
            return _LOOPBACK


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else None
