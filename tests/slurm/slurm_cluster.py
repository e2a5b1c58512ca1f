"""A real Slurm cluster of four machines on one: munge, MariaDB, slurmdbd, slurmctld and four slurmd with fake GPUs.

Nothing is written outside one temporary folder, no service is started or stopped, and clusters run side by side.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from cluster_options import CLUSTER_NAME, NODES, PORTS, Account, ClusterOptions, Preemption, write_files
from polling import until
from port_block import PortBlock
from reaped_folder import ReapedFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cluster_options import DaemonName

_PROGRAMS = ("munged", "munge", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "squeue", "sacct")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PATIENCE_SECONDS = 300.0
_USER = "root"
_DATABASE_OPTIONS = (
    *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"),
    *("--innodb-flush-method=nosync", "--innodb-lock-wait-timeout=900", "--skip-log-bin", "--skip-name-resolve"),
    "--performance-schema=OFF",
)

T = TypeVar("T")


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """A signal to those processes that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def why_not_here() -> str:
    """Why no cluster can be started on this machine; empty where one can."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"Slurm's Debian packages are not here ({', '.join(missing)} missing): `make test` as root installs them"
    return "" if os.geteuid() == 0 else "a Slurm cluster of this test's own is started as root only"


@dataclass(frozen=True, slots=True)
class AccountedJob:
    """A row of `sacct -D -X`: one run of a job. Times are seconds since the epoch, None while there is none.

    `restart` counts the earlier runs of the same job: Slurm 22.05 has no column for it.
    """

    job_id: str
    name: str
    state: str
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    elapsed_seconds: int
    allocated: str
    """AllocTRES."""
    restart: int


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A row of squeue: a job that has not ended, or whose processes have not."""

    job_id: str
    name: str
    state: str
    reason: str
    nodes: str


class SlurmTestCluster:
    """The cluster. A context manager: up on entry, wiped at the end, and also when this process is killed.

    Partition `low` is the default and preempted by requeue, `high` preempts it. Daemons are called `munge`, `db`,
    `dbd`, `ctld` and `node1` to `node4`.
    """

    def __init__(self, options: ClusterOptions | None = None) -> None:
        self.options = options or ClusterOptions()
        self._folder = ReapedFolder()
        self.root = self._folder.path
        self.environment: Mapping[str, str] = self._folder.environment
        """What clients need."""
        self._ports = PortBlock(PORTS)
        self._daemons: dict[DaemonName, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """The cluster, up."""
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        """Wipe it."""
        self.wipe()

    def up(self) -> None:
        """Start everything and wait until it is ready for jobs."""
        write_files(self.root, self.options, self._ports.first)
        for name in self._wanted():
            if name == "db":
                subprocess.run(["cp", "-a", "--reflink=auto", _prepared().root / "db", self.root], check=True)
            self._spawn(name)
            if name in {"db", "dbd", "ctld"}:
                self._wait_until_ready(name)
            if name == "dbd":
                self._add_accounts()
        self._wait_until_ready("node1")
        if self.options.accounting:
            self.wait_for(self._is_registered, "slurmctld in slurmdbd")

    def prepare(self) -> None:
        """Make the accounting database of a cluster that has never been up."""
        write_files(self.root, self.options, self._ports.first)
        # In a shared /tmp, each MariaDB that starts removes the temporary tables of the others.
        options = (
            f"--datadir={self.root}/db",
            f"--tmpdir={self.root}/scratch",
            "--skip-test-db",
            "--innodb-log-file-size=8M",
        )
        install = ("mariadb-install-db", "--no-defaults", f"--user={_USER}", *options)
        self.run(*install, "--auth-root-authentication-method=normal")
        daemons: tuple[DaemonName, ...] = ("munge", "db", "dbd")
        for name in daemons:
            self.start(name)
        self.run("sacctmgr", "-i", "add", "cluster", CLUSTER_NAME)
        for name in reversed(daemons):
            self.stop(name)

    def wipe(self) -> None:
        """Kill everything that is left of it, jobs included, and remove its folder."""
        self._folder.remove()
        for process in self._daemons.values():
            process.wait()
        self._ports.close()

    def processes(self) -> list[int]:
        """Ids of all its processes: daemons, steps, jobs, and clients that are at work."""
        return self._folder.processes()

    # Daemons

    def start(self, name: DaemonName) -> None:
        """Start a daemon that has ended, and wait until it serves; one that runs is left alone."""
        if not self.is_up(name):
            self._spawn(name)
        self._wait_until_ready(name)

    def stop(self, name: DaemonName, number: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon by a signal; returns when it is gone."""
        self._daemons[name].send_signal(number)
        self._daemons[name].wait(_PATIENCE_SECONDS)

    def freeze(self, name: DaemonName) -> None:
        """It is there and does not answer, until `thaw`."""
        self._daemons[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: DaemonName) -> None:
        """Let a frozen daemon go on."""
        self._daemons[name].send_signal(signal.SIGCONT)

    def is_up(self, name: DaemonName) -> bool:
        """Whether the daemon runs, frozen or not."""
        process = self._daemons.get(name)
        return process is not None and process.poll() is None

    def kill_node(self, name: DaemonName, *, with_steps: bool = True, with_jobs: bool = False) -> None:
        """Kill a machine's slurmd, with the slurmstepd of its jobs, and with the processes of its jobs if asked to.

        Without `with_jobs` those live on, as on a machine that has only lost Slurm.
        """
        self.stop(name, signal.SIGKILL)
        if with_steps:
            send(self._of(name, _is_step_of), signal.SIGKILL)
        if with_jobs:
            send(self.job_processes(name), signal.SIGKILL)

    def job_processes(self, name: DaemonName) -> list[int]:
        """Ids of the processes of jobs on a machine, in the order in which they were started."""
        return self._of(name, _is_job_of)

    # Clients

    def run(self, *command: str, timeout: float = _PATIENCE_SECONDS) -> str:
        """What a client (squeue, scontrol, sbatch ...) prints; an AssertionError with its complaint if it fails."""
        ended = self.ask(*command, timeout=timeout)
        assert ended.returncode == 0, f"{' '.join(command)}: {ended.stderr.strip()}"
        return ended.stdout

    def ask(self, *command: str, timeout: float = _PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
        """A client's answer, whatever it is."""
        return subprocess.run(
            command, env=self._client_environment(), capture_output=True, text=True, timeout=timeout, check=False
        )

    def jobs_in_queue(self) -> list[QueuedJob]:
        """What squeue shows."""
        lines = self.run("squeue", "-h", "-a", "-o", "%A|%j|%T|%r|%N").splitlines()
        return [QueuedJob(*line.split("|")) for line in lines]

    def sacct_rows(self, job_ids: Iterable[str] = ()) -> list[AccountedJob]:
        """What `sacct -D -X` shows: each run of each job, or of those asked for by id, oldest submission first.

        A job that was held until it was cancelled was never eligible: only a question for its id finds it.
        """
        columns = "JobIDRaw,JobName%200,State,Submit,Start,End,ElapsedRaw,AllocTRES"
        which = ("-j", ",".join(job_ids)) if job_ids else ("-a",)
        text = self.run("sacct", "-D", "-X", "-n", "-P", *which, "-S", "1970-01-02", "-o", columns)
        lines = sorted((line.split("|") for line in text.splitlines()), key=lambda line: (int(line[3]), int(line[0])))
        runs: Counter[tuple[str, str]] = Counter()
        rows = []
        for job_id, name, state, submitted, started, ended, elapsed, allocated in lines:
            times = (float(submitted), _time(started), _time(ended))
            rows.append(AccountedJob(job_id, name, state, *times, int(elapsed), allocated, runs[job_id, name]))
            runs[job_id, name] += 1
        return rows

    def clear(self) -> None:
        """As it was after `up`: all daemons run, no job is there, every machine is idle."""
        for name in self._wanted():
            if self.is_up(name):
                self.thaw(name)
            self.start(name)
        self.wait_for(self._is_queue_empty, "an empty queue")
        for node in NODES:
            send(self.job_processes(node), signal.SIGKILL)
        for node in NODES:
            # Refused, where there is nothing to resume.
            self.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
        for partition in ("low", "high"):
            self.run("scontrol", "update", f"PartitionName={partition}", "State=UP")
        self.wait_for(lambda: set(self.node_states()) == {"idle"}, "idle machines")

    def node_states(self) -> list[str]:
        """State of each machine as sinfo writes it: `idle`, `down*`, `drained` ..."""
        return self.run("sinfo", "-h", "-N", "-p", "low", "-o", "%T").split()

    def wait_for(self, condition: Callable[[], T], what: str, seconds: float = _PATIENCE_SECONDS) -> T:
        """Ask again and again until the answer is true, and return it; an AssertionError after `seconds`."""
        return until(condition, lambda: f"{what}; {self._last_words()}", seconds)

    # Inside

    def _of(self, name: DaemonName, belongs: Callable[[int, str], bool]) -> list[int]:
        found = []
        for pid in sorted(self.processes()):
            with contextlib.suppress(OSError):  # it ended in between
                if belongs(pid, name):
                    found.append(pid)
        return found

    def _wanted(self) -> list[DaemonName]:
        accounting: list[DaemonName] = ["db", "dbd"] if self.options.accounting else []
        return ["munge", *accounting, "ctld", "node1", "node2", "node3", "node4"]

    def _spawn(self, name: DaemonName) -> None:
        with (self.root / "log" / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                self._command(name),
                env=self._client_environment(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _command(self, name: DaemonName) -> list[str]:
        root = self.root
        match name:
            case "munge":
                files = {"key-file": "munge/key", "socket": "munge/socket", "seed-file": "munge/seed"}
                files |= {"pid-file": "pid/munge", "log-file": "log/munge.log"}
                return ["munged", "--foreground", *(f"--{key}={root / file}" for key, file in files.items())]
            case "db":
                files = {
                    "datadir": "db",
                    "tmpdir": "scratch",
                    "socket": "db.sock",
                    "pid-file": "pid/db",
                    "init-file": "accounting.sql",
                }
                return [
                    *("mariadbd", "--no-defaults", f"--user={_USER}", "--bind-address=127.0.0.1"),
                    *(f"--{key}={root / file}" for key, file in files.items()),
                    *(f"--port={self._ports.first + 2}", *_DATABASE_OPTIONS),
                ]
            case "dbd":
                return ["slurmdbd", "-D"]
            case "ctld":
                return ["slurmctld", "-D"]
            case _:
                return ["slurmd", "-D", "-N", name]

    def _wait_until_ready(self, name: DaemonName) -> None:
        checks: dict[str, Callable[[], bool]] = {
            "munge": (self.root / "munge/socket").exists,
            "db": functools.partial(_greets, self._ports.first + 2),
            "dbd": lambda: self.ask("sacctmgr", "-n", "show", "cluster").returncode == 0,
            "ctld": lambda: self.ask("scontrol", "ping").returncode == 0,
        }
        is_ready = checks.get(name, self._are_nodes_live)

        def is_ready_by_now() -> bool:
            if not self.is_up(name):
                # On a busy machine slurmdbd may give up at the first words of a database that is just up.
                self._spawn(name)
            return is_ready()

        self.wait_for(is_ready_by_now, name)

    def _are_nodes_live(self) -> bool:
        up = [node for node in NODES if self.is_up(node)]
        lines = self.run("sinfo", "-h", "-N", "-p", "low", "-o", "%N %T").splitlines()
        states = dict(line.split() for line in lines)
        return all(not states.get(node, "*").endswith("*") and states[node] != "unknown" for node in up)

    def _is_registered(self) -> bool:
        return bool(self.run("sacctmgr", "-n", "-P", "list", "cluster", "format=controlhost").strip())

    def _is_queue_empty(self) -> bool:
        jobs = self.jobs_in_queue()
        for job in jobs:
            # Nothing is waited for that a job might still do; its requeue is cancelled with it.
            self.ask("scancel", "--full", "--signal=KILL", job.job_id)
            self.ask("scancel", job.job_id)
        return not jobs

    def _add_accounts(self) -> None:
        options = self.options
        by_qos = options.preemption is Preemption.QOS
        if by_qos:
            self.run("sacctmgr", "-i", "add", "qos", "low", f"GraceTime={options.grace}")
            self.run("sacctmgr", "-i", "add", "qos", "high", "Preempt=low", "Priority=100")
        accounts = options.accounts or ((Account("lab"),) if by_qos else ())
        for account in accounts:
            self.run("sacctmgr", "-i", "add", "account", account.name, *account.limits)
            qos = ("QOS=low,high", "DefaultQOS=low") if by_qos else ()
            self.run("sacctmgr", "-i", "add", "user", _USER, f"Account={account.name}", *qos)
        if accounts:
            self.run("sacctmgr", "-i", "modify", "user", _USER, "set", f"DefaultAccount={accounts[0].name}")

    def _client_environment(self) -> dict[str, str]:
        scrubbed = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SACCT_"))}
        return {**scrubbed, "PATH": _PATH, "SLURM_TIME_FORMAT": "%s", **self.environment}

    def _last_words(self) -> str:
        """The ends of its logs, for whoever has to find out."""
        lines = []
        for log in sorted((self.root / "log").glob("*.log")):
            lines += [f"{log.name}: {line}" for line in log.read_text(errors="replace").splitlines()[-6:]]
        return "\n".join(lines)


_preparing = threading.Lock()


@functools.cache
def _made() -> SlurmTestCluster:
    cluster = SlurmTestCluster()
    cluster.prepare()
    return cluster


def _prepared() -> SlurmTestCluster:
    """A cluster that is down, with a database as slurmdbd makes it: made once, copied into each cluster."""
    with _preparing:
        return _made()


def _is_step_of(pid: int, node: str) -> bool:
    """Whether a process is a slurmstepd of a machine: it has kept the log of the slurmd that started it."""
    process = Path(f"/proc/{pid}")
    if not (process / "exe").readlink().name.startswith("slurmstepd"):
        return False
    return any(link.readlink().name == f"slurmd-{node}.log" for link in (process / "fd").iterdir())


def _is_job_of(pid: int, node: str) -> bool:
    return f"SLURMD_NODENAME={node}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def _greets(port: int) -> bool:
    """Whether a database server says its first word there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS) as stream:
            return bool(stream.recv(1))
    except OSError:
        return False


def _time(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
