"""`python -m llmzero_hpc.cluster.server_job ATTEMPT REACH START IDLE`: runs a language model's server inside its job.

It gives the server a port and its key, says in a file where it listens and confirms that every few seconds, and ends it
when it does not answer within START seconds, hangs, or nobody has used it for IDLE seconds. REACH is `network` where
other machines are to reach it, or `here`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.job_environment import RESTART_VARIABLE, reachable_address
from llmzero_hpc.cluster.templates import rendered
from llmzero_hpc.errors import StorageError
from llmzero_hpc.store.atomic import write_bytes
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.store.server_directory import Announcement, ServerDirectory, announce

if TYPE_CHECKING:
    from types import FrameType

TEMPLATE = "llm_server.sh"
"""Of `slurm_templates/`: how the server is started."""
BEAT_SECONDS = 5.0
"""Between two confirmations of where it listens."""
HEALTH_SECONDS = 3.0
"""How long an answer about its health may take."""

HERE, NETWORK = "here", "network"
LOOPBACK = "127.0.0.1"

_LOOK_SECONDS = 0.5
_HUNG_SECONDS = 300.0
"""How long a server that has answered may be silent until it is ended."""
_LEAVE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL."""
_PORTS = (20_000, 60_000)
_GUESSES = 50
_TRIES = 5
"""A port that was free may be taken when the server comes to it."""


def write_server_script(attempt: AttemptDirectory, own: Path | None = None, **values: object) -> None:
    """Write what starts the server into its attempt's folder; `own` may hold the user's template.

    Raises:
        ConfigurationError: something is wrong in the template.
        StorageError: the file system refused.
    """
    write_bytes(attempt.path / TEMPLATE, rendered(TEMPLATE, own, **values).encode())


def is_healthy(host: str, port: int) -> bool:
    """Whether a server answers there, and well. Asked without a key, and past any proxy."""
    connection = http.client.HTTPConnection(host, port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class ServerJob:
    """One run. In the main thread, as it takes SIGTERM."""

    def __init__(self, attempt: AttemptDirectory, reach: str, start_seconds: float, idle_seconds: float) -> None:
        self._attempt = attempt
        self._host = reachable_address() if reach == NETWORK else LOOPBACK
        self._server = ServerDirectory(attempt.path.parent.parent)
        self._start_seconds = start_seconds
        self._idle_seconds = idle_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self) -> int:
        """The server's exit code, as a shell has it; 0 where nobody needs it any more."""
        signal.signal(signal.SIGTERM, self._on_term)
        exit_code = 0
        for _ in range(_TRIES):
            port = _free_port()
            exit_code = self._serve(port)
            if self._is_stopped or exit_code == 0 or _is_free(port):
                break
        if self._is_stopped:
            return 128 + signal.SIGTERM  # vLLM, asked to end, succeeds; a job that did would not be queued again
        return exit_code if exit_code >= 0 else 128 - exit_code

    def _serve(self, port: int) -> int:
        if self._is_idle():
            _say("nobody uses this server")
            return 0
        said = Announcement(int(os.environ.get(RESTART_VARIABLE, "0")), self._host, port, time.time())
        file = announce(self._attempt, said)
        environment = {**os.environ, "LLMZERO_SERVER_HOST": self._host, "LLMZERO_SERVER_PORT": str(port)}
        environment["VLLM_API_KEY"] = self._server.key()
        script = str(self._attempt.path / TEMPLATE)
        self._process = process = subprocess.Popen(["bash", script], env=environment, stdin=subprocess.DEVNULL)
        if self._is_stopped:
            process.terminate()  # the signal came before there was a process
        return self._watch(process, said, file)

    def _watch(self, process: subprocess.Popen[bytes], said: Announcement, file: Path) -> int:
        beat = heard = time.monotonic()
        while process.poll() is None:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if said.up_at is None or now - beat >= BEAT_SECONDS:
                if is_healthy(said.host, said.port):
                    heard = now
                    if said.up_at is None:
                        said = replace(said, up_at=time.time())
                        announce(self._attempt, said)
                        _say(f"it answers at {said.host}:{said.port}")
                limit = self._start_seconds if said.up_at is None else _HUNG_SECONDS
                if now - heard > limit:
                    _say(f"it has not answered for {now - heard:.0f} s")
                    _end(process)
                    return os.EX_UNAVAILABLE
            if now - beat >= BEAT_SECONDS:
                beat = now
                _confirm(file)
                if self._is_idle():
                    _say("nobody uses this server any more")
                    _end(process)
                    return 0
        _confirm(file)
        return process.returncode

    def _is_idle(self) -> bool:
        try:
            used_at = self._server.used_at()
        except StorageError:
            return False
        return used_at is None or time.time() - used_at > self._idle_seconds

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self._is_stopped = True
        if self._process is not None:
            self._process.terminate()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _confirm(file: Path) -> None:
    """By this machine's clock, as what the run costs is counted with it."""
    now = time.time()
    with contextlib.suppress(OSError):
        os.utime(file, (now, now))


def _free_port() -> int:
    """A port that nobody can guess."""
    chooser = random.SystemRandom()
    ports = (chooser.randrange(*_PORTS) for _ in range(_GUESSES))
    return next((port for port in ports if _is_free(port)), _PORTS[0])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def _say(text: str) -> None:
    print(f"[server job] {text}", flush=True)  # noqa: T201 - the job's log


def main() -> int:
    """Run the server of the attempt that the command line names."""
    attempt, reach, start, idle = sys.argv[1:]
    return ServerJob(AttemptDirectory(Path(attempt)), reach, float(start), float(idle)).run()


if __name__ == "__main__":
    sys.exit(main())
