"""Runs a function of the program in a process of its own and tells what that took: memory and modules.

    python benchmarks/probe.py report.json llmzero_hpc.cli.main:main status demo

Imports next to nothing itself, so that what it reports is the program's.
"""

from __future__ import annotations

import atexit
import importlib
import json
import resource
import sys


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes.

    The kernel's own count of the present program: `ru_maxrss` would include the process that started it.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - pathlib would be in the measure
            lines = dict(line.split(":", 1) for line in status)
        return int(lines["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def imported() -> list[str]:
    """Top-level packages and modules that are loaded."""
    return sorted({name.partition(".")[0] for name in sys.modules})


def _tell(report: str) -> None:
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123 - as above
        json.dump({"peak_memory": peak_memory(), "modules": imported()}, file)


if __name__ == "__main__":
    target, function = sys.argv[2].split(":")
    atexit.register(_tell, sys.argv[1])
    sys.argv = [target, *sys.argv[3:]]
    getattr(importlib.import_module(target), function)()
