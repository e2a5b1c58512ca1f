"""CPU time of functions and of processes, and the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEAVY = frozenset(
    {
        "PIL",
        "datasets",
        "deepspeed",
        "h5py",
        "matplotlib",
        "numpy",
        "openai",
        "pandas",
        "peft",
        "submitit",
        "torch",
        "transformers",
        "trl",
        "vllm",
    }
)
"""Packages that cost a process on a login node tens of megabytes and most of a second."""

PROBE = Path(__file__).with_name("probe.py")
_BEGIN = "<!-- Measured by {}. Do not edit. -->"
_END = "<!-- End of what is measured. -->"
_PATIENCE_SECONDS = 2.0
_BETWEEN_LINES = 2.0


class Progress:
    """Says on standard error what is being measured, once that has taken two seconds and whenever it says more."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    def __call__(self, what: str) -> None:
        """One more thing begins."""
        now = time.monotonic()
        if now - self._began > _PATIENCE_SECONDS and now - self._said > _BETWEEN_LINES:
            self._said = now
            print(f"[{now - self._began:4.0f} s] {what}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a process took, its own children included: CPU seconds and wall seconds."""

    cpu: float
    wall: float

    @classmethod
    def of(cls, command: Sequence[str]) -> Self:
        """Run a command to its end; raises CalledProcessError when it fails."""
        began = time.perf_counter()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                output.seek(0)
                raise subprocess.CalledProcessError(process.returncode, list(command), output.read())
        return cls(usage.ru_utime + usage.ru_stime, wall)


def medians(commands: dict[str, Sequence[str]], repeats: int) -> dict[str, Run]:
    """Medians of several runs of each command. They take turns, so that a busy moment of the machine meets all."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(Run.of(command))
    return {
        name: Run(statistics.median(run.cpu for run in taken), statistics.median(run.wall for run in taken))
        for name, taken in runs.items()
    }


def cpu_seconds(call: Callable[[], object], *, at_least: float = 0.2, most: int = 200) -> float:
    """CPU seconds of one call in this process: the median of as many as take `at_least` seconds together."""
    taken: list[float] = []
    while sum(taken) < at_least and len(taken) < most:
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Peak resident memory of a process in bytes, and the packages that it had loaded at its end."""

    peak_memory: int
    modules: tuple[str, ...]

    @property
    def heavy(self) -> tuple[str, ...]:
        """Those that have no place on a login node."""
        return tuple(name for name in self.modules if name in HEAVY)

    @classmethod
    def of(cls, function: str, *arguments: str) -> Self:
        """Run `package.module:function` with these arguments in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            Run.of([sys.executable, str(PROBE), str(report), function, *arguments])
            told = json.loads(report.read_text())
        return cls(told["peak_memory"], tuple(told["modules"]))


def machine() -> list[tuple[str, str]]:
    """What the figures depend on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        ("processor", f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable"),
        ("system", platform.system()),
        ("Python", platform.python_version()),
        ("load average at the end", f"{load} (1, 5, 15 minutes)"),
    ]


def part_of_page(script: str, text: str) -> str:
    """Markdown with lines of even length, between marks by which `with_part` finds it again."""
    blocks = [each if each[0] in "|#" else textwrap.fill(" ".join(each.split()), 120) for each in text.split("\n\n")]
    return "\n\n".join([_BEGIN.format(script), *blocks, _END]) + "\n"


def with_part(page: str, part: str) -> str:
    """The page with a part, in its old place or at the end."""
    before, _, rest = page.partition(part.partition("\n")[0])
    after = rest.partition(_END)[2].strip("\n")
    return before.rstrip("\n") + "\n\n" + part + (f"\n{after}\n" if after else "")


def part_in(page: str, script: str) -> str:
    """The part of a page that a script has written; empty where there is none."""
    _, mark, rest = page.partition(_BEGIN.format(script))
    return f"{mark}{rest.partition(_END)[0]}{_END}\n" if mark else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
