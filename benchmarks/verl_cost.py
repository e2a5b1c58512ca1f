"""What a phase of VeRL costs before its first step, on CPUs: time, memory, and the environment that it needs.

    python benchmarks/verl_cost.py PYTHON [PAGE]

PYTHON has VeRL and vLLM (`make verl` installs them). Writes its part of the page anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from measuring import Progress, machine, part_of_page, with_part

from llmzero_hpc.sections import Hardware
from llmzero_hpc.store.atomic import write_bytes

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT / "tests" / "trainers" / name) for name in ("", "verl")]
from tiny_phases import phase_spec  # noqa: E402 - it stands beside the tests
from verl_phases import SMALL, attempt_of, build_model, said, started, write_task  # noqa: E402 - as above

SCRIPT = "benchmarks/verl_cost.py"
_STEPS = 4
_VLLM_WIDTH = 64
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Start:
    """A phase of a tiny model on one machine.

    Attributes:
        rollouts: what generates them.
        wall, cpu: seconds from the start of the command until the first step is in the metrics.
        step: wall seconds of a later step, median.
        peak_memory: bytes of all processes together, shared pages counted once.
        processes: at that moment.
    """

    rollouts: str
    wall: float
    cpu: float
    step: float
    peak_memory: int
    processes: int


def measured(python: str, progress: Progress) -> tuple[Start, ...]:
    """Both kinds of rollouts."""
    starts = []
    for vllm in (False, True):
        progress(f"a phase of VeRL with rollouts by {_name(vllm=vllm)}")
        starts.append(_start(python, vllm=vllm))
    return tuple(starts)


def environment_bytes(python: str) -> int:
    """What the environment of a Python takes on disk."""
    files = {}
    for path in Path(python).parent.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            files[status.st_ino] = 512 * status.st_blocks
    return sum(files.values())


def section(starts: tuple[Start, ...], size: int) -> str:
    """The part of the page."""
    rows = "\n".join(
        f"| {one.rollouts} | {one.wall:.0f} | {one.cpu:.0f} | {one.step:.1f} | {one.peak_memory / 1e9:.1f} GB "
        f"| {one.processes} |"
        for one in starts
    )
    load = dict(machine())["load average at the end"]
    return part_of_page(
        SCRIPT,
        f"""\
## A phase of VeRL on CPUs

A model of two narrow layers on one machine, so that next to nothing of this is training. Until the first step is in the
metrics VeRL imports torch, transformers and Ray in each of its processes, and vLLM loads the model. Memory is of all
processes together, shared pages counted once. The environment has VeRL and vLLM and takes {size / 1e9:.1f} GB. Load
average at the end: {load}.

| rollouts | wall seconds before the first step | CPU seconds | wall seconds of a step | peak memory | processes |
| --- | --- | --- | --- | --- | --- |
{rows}""",
    )


def _name(*, vllm: bool) -> str:
    return "vLLM" if vllm else "transformers"


def _start(python: str, *, vllm: bool) -> Start:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        spec = phase_spec(
            root / "phases" / "0000",
            build_model(root / "model", _VLLM_WIDTH),
            write_task(root / "task"),
            configuration=SMALL,
            total_steps=_STEPS,
            validate_every_steps=_STEPS,
            hardware=Hardware(device="cpu", vllm=vllm),
        )
        attempt, began = attempt_of(spec), time.monotonic()
        process = started(spec, python)
        watched = psutil.Process(process.pid)
        seconds: dict[int, float] = {}
        wall = cpu = 0.0
        peak, processes = 0, 0
        while process.poll() is None and time.monotonic() - began < _PATIENCE_SECONDS:
            family, memory = _family(watched), 0
            for one in family:
                with contextlib.suppress(psutil.Error):
                    times = one.cpu_times()
                    seconds[one.pid] = times.user + times.system
                    memory += one.memory_full_info().pss
            if memory > peak:
                peak, processes = memory, len(family)
            if not wall and attempt.metrics.exists():
                wall, cpu = time.monotonic() - began, sum(seconds.values())
            time.sleep(_LOOK_SECONDS)
        if process.wait(timeout=1.0):
            raise RuntimeError(said(attempt))
        lines = [json.loads(line) for line in attempt.metrics.read_text().splitlines()]
    steps = [line["metrics"]["step_seconds"] for line in lines[1:]]
    return Start(_name(vllm=vllm), wall, cpu, statistics.median(steps), peak, processes)


def _family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def main() -> None:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("python")
    arguments.add_argument("page", type=Path, nargs="?", default=_ROOT / "docs" / "benchmarks.md")
    chosen = arguments.parse_args()
    python = str(Path(chosen.python).absolute())  # a phase starts in a folder of its own
    part = section(measured(python, Progress()), environment_bytes(python))
    write_bytes(chosen.page, with_part(chosen.page.read_text(encoding="utf-8"), part).encode())
    print(f"wrote {chosen.page}")


if __name__ == "__main__":
    main()
