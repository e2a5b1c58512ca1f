"""VeRL as a child process: started, watched, and ended along with the command that started it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmzero_hpc.store.atomic import write_bytes
from llmzero_hpc.trainers.verl.batch import processes, uses_cuda
from llmzero_hpc.trainers.verl.hydra_text import assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from llmzero_hpc.sections import Hardware
    from llmzero_hpc.trainers.verl.hydra_text import Value

_POLL_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 4.0
"""Less than the phase job gives this process. VeRL saves nothing when it is told to end."""
_LEAVING_SECONDS: Final = 60.0
"""How long VeRL may take to leave when everything is done; it may hang there."""
_RAY_CPUS: Final = 32
"""VeRL's actors reserve more CPUs than they use."""


class Stopped(BaseException):
    """The command was told to end."""


class Child:
    """One run of `verl.trainer.main_ppo`. Belongs to the main thread, whose SIGTERM it takes.

    Args:
        overrides: what VeRL is told.
        hardware: what it runs on.
        record: where the command is kept for people.
    """

    def __init__(self, overrides: Sequence[str], hardware: Hardware, record: Path) -> None:
        self._overrides, self._hardware, self._record = overrides, hardware, record
        self._is_told = False

    def run(self, look: Callable[[], bool]) -> int:
        """Run VeRL; `look` is called again and again, and once more after its end.

        Args:
            look: returns whether everything that was wanted is there; what it raises ends VeRL.

        Returns:
            VeRL's exit code; 0 where everything was there and it did not leave.

        Raises:
            Stopped: SIGTERM came; VeRL has been ended, and `look` called after that.
        """
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            with _ray(self._hardware) as more:
                return self._watch([*self._overrides, *more], look)
        finally:
            signal.signal(signal.SIGTERM, before)

    def _watch(self, overrides: Sequence[str], look: Callable[[], bool]) -> int:
        command = command_with(overrides)
        write_bytes(self._record, (" \\\n    ".join(map(shlex.quote, command)) + "\n").encode())
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
        done_at: float | None = None
        try:
            while process.poll() is None and not self._is_told:
                is_done = look()
                if is_done:
                    done_at = done_at or time.monotonic()
                    if time.monotonic() - done_at > _LEAVING_SECONDS:
                        break
                time.sleep(_POLL_SECONDS)
        finally:
            exit_code = _end(process)
        is_done = look()
        if self._is_told and not is_done:
            raise Stopped
        return 0 if is_done else exit_code

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._is_told = True


def command_with(overrides: Sequence[str]) -> tuple[str, ...]:
    """VeRL's own entry point with what it is told."""
    return (sys.executable, "-m", "verl.trainer.main_ppo", *overrides)


def _end(process: subprocess.Popen[bytes]) -> int:
    """End a process and its group, gently at first; the exit code it had or got."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


@contextlib.contextmanager
def _ray(hardware: Hardware) -> Iterator[list[str]]:
    """Overrides for the Ray that VeRL is to use: the job's, or, where there is none, one that VeRL starts itself."""
    if os.environ.get("RAY_ADDRESS"):
        yield []
        return
    # Sockets lie in it, whose paths may not be long.
    folder = Path(tempfile.mkdtemp(prefix="lz-", dir="/tmp"))
    settings: dict[str, Value] = {
        "ray_kwargs.ray_init.num_cpus": max(_RAY_CPUS, os.cpu_count() or 1),
        "+ray_kwargs.ray_init.include_dashboard": False,
        "+ray_kwargs.ray_init._temp_dir": str(folder / "r"),  # Ray opens its own to everybody
    }
    if not uses_cuda(hardware):
        settings["+ray_kwargs.ray_init.num_gpus"] = processes(hardware).on_each
    try:
        yield [assignment(key, value) for key, value in settings.items()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
