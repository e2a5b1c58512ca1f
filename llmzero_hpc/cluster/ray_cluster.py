"""A Ray cluster of a job's machines: own ports, own token, own folders; other jobs' Ray beside it is let be."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.command import announcements_kept
from llmzero_hpc.cluster.job_environment import cpus_here
from llmzero_hpc.cluster.processes import RUN_VARIABLE
from llmzero_hpc.cluster.templates import rendered
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.store.atomic import PRIVATE_FILE, PRIVATE_FOLDER, create_bytes, remove, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmzero_hpc.store.phase_directory import AttemptDirectory

HEAD_SCRIPT, WORKER_SCRIPT = "ray_head.sh", "ray_worker.sh"

_OF_OTHER_CLUSTERS = frozenset({"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_TMPDIR"})
_LONGEST_FOLDER = 38
"""Characters that what comes after it in a socket's path leaves of the 107 that the kernel takes."""
_STARTS = 3
"""A port that was free may be taken when Ray comes to it, and a part of it may come too late for another."""
_START_SECONDS = 120.0
"""How long a start may take to fail; Ray's own limits are 15 to 30 seconds each."""
_ANSWER_SECONDS = 180.0
_GONE_SECONDS = 10.0
"""How long what was killed may still write, on a busy machine."""
_POLL_SECONDS = 0.1


def write_ray_scripts(folder: Path, nodes: int, own: Path | None = None) -> str:
    """Write what starts Ray on a job's machines into a folder that exists; returns that, as the phase job takes it.

    `own` may hold the user's templates.

    Raises:
        ConfigurationError: something is wrong in a template.
        StorageError: the file system refused.
    """
    for name in (HEAD_SCRIPT, WORKER_SCRIPT):
        write_bytes(folder / name, rendered(name, own, nodes=nodes).encode())
    return str(folder)


class RayNode:
    """Ray on this machine, as one of the scripts starts it.

    Its workers lead process groups of their own: `kill_stragglers` finds them.
    """

    def __init__(self, scripts: str, log: Path, environment: Mapping[str, str]) -> None:
        """`environment` is the trainer's, which Ray's workers inherit. Raises OSError."""
        self._scripts, self._log = scripts, log
        self._folder = ray_folder(environment[RUN_VARIABLE])
        self._folder.mkdir(mode=PRIVATE_FOLDER)
        self._ray_folder = self._folder / "r"  # Ray opens its own to everybody
        self._environment = {
            "LLMZERO_RAY_CPUS": str(cpus_here()),
            "LLMZERO_RAY_GPUS": str(len(_visible(environment))),
            **environment,
            "LLMZERO_RAY_FOLDER": str(self._ray_folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._starts, self._started_at = 0, 0.0

    def keep_worker(self, address: str) -> None:
        """Join the head's Ray, and again where that failed: on a busy machine Ray's parts do not wait for each other.

        One that dies later is for the trainer to see, as it has lost what ran there. Raises OSError.
        """
        failed = self._process is not None and self._process.poll() is not None
        soon = time.monotonic() < self._started_at + _START_SECONDS
        if self._process is None or (failed and soon and self._starts < _STARTS):
            self._start(WORKER_SCRIPT, {"LLMZERO_RAY_ADDRESS": address})

    def start_head(self, is_stopped: Callable[[], bool]) -> str:
        """Start the head's Ray and wait for it; its address, or an empty string where the job was stopped meanwhile.

        Raises:
            ClusterError: it does not come up.
        """
        for _ in range(_STARTS):
            port = str(_free_port()) if importlib.util.find_spec("grpc") else ""
            process = self._start(HEAD_SCRIPT, {"LLMZERO_RAY_CLIENT_PORT": port})
            while process.poll() is None:
                if is_stopped():
                    return ""
                address = self._address()
                if address:
                    return address
                time.sleep(_POLL_SECONDS)
        raise ClusterError(f"Ray does not start on {socket.gethostname()}: {_last_line(self._log)}", f"see {self._log}")

    @property
    def problem(self) -> str:
        """Why it serves no more, for people; empty while it does, or was not started."""
        if self._process is None or self._process.poll() is None:
            return ""
        return f"Ray has ended on {socket.gethostname()}, see {self._log}"

    def remove(self) -> None:
        """End it, and clear away what it left on this machine."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        deadline = time.monotonic() + _GONE_SECONDS
        while True:
            shutil.rmtree(self._folder, ignore_errors=True)
            if not self._folder.exists() or time.monotonic() > deadline:
                return
            time.sleep(_POLL_SECONDS)

    def _start(self, script: str, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        self._starts, self._started_at = self._starts + 1, time.monotonic()
        with self._log.open("ab") as log, announcements_kept():
            self._process = subprocess.Popen(
                ["bash", str(Path(self._scripts) / script)],
                env={**self._environment, **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        return self._process

    def _address(self) -> str:
        try:
            # Ray writes it when the machine's part is up.
            return (self._ray_folder / "ray_current_cluster").read_text(encoding="utf-8").strip()
        except OSError:
            return ""


def ray_folder(run: str) -> Path:
    """Private folder with the sockets and logs of Ray of one run on this machine."""
    name = f"lz-{run[:12]}"
    own = Path(tempfile.gettempdir()) / name
    return own if len(str(own)) <= _LONGEST_FOLDER else Path("/tmp") / name  # noqa: S108 - its name is random


def ray_environment(environment: Mapping[str, str], token: Path) -> dict[str, str]:
    """The trainer's environment with what Ray's processes, and those that use it, are told alike on all machines."""
    own = {key: value for key, value in environment.items() if key not in _OF_OTHER_CLUSTERS}
    return {**own, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}


def create_token(attempt: AttemptDirectory, restart: int) -> Path:
    """A new secret of one run; those that killed runs left are removed.

    Raises:
        StorageError: the file system refused.
    """
    for run in attempt.claimed_runs():
        if run <= restart:
            remove(attempt.ray_token(run))
    path = attempt.ray_token(restart)
    create_bytes(path, secrets.token_hex(32).encode(), PRIVATE_FILE)
    return path


def wait_for_nodes(
    environment: Mapping[str, str], nodes: int, seconds: float, log: Path, is_stopped: Callable[[], bool]
) -> None:
    """Wait until all machines have joined, or the job was stopped. `environment` holds RAY_ADDRESS.

    Raises:
        ClusterError: they have not in time.
    """
    # A process of its own: Ray in this one would stay for days.
    with tempfile.TemporaryFile() as said, log.open("ab") as complaints:
        counting = subprocess.Popen(
            [sys.executable, "-m", "llmzero_hpc.cluster.ray_nodes", str(nodes), str(seconds)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complaints,
        )
        deadline = time.monotonic() + seconds + _ANSWER_SECONDS
        while counting.poll() is None:
            if is_stopped() or time.monotonic() > deadline:
                counting.kill()
                counting.wait()
            time.sleep(_POLL_SECONDS)
        if counting.returncode and not is_stopped():
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            raise ClusterError(words[-1] if words else f"Ray at {environment['RAY_ADDRESS']} does not answer")


def _visible(environment: Mapping[str, str]) -> list[str]:
    return [gpu for gpu in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
