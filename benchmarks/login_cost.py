"""What a controller costs the login node while phases run: CPU seconds, cluster calls and bytes of each tick.

    python benchmarks/login_cost.py PHASES TICKS INTERVAL JUDGING SETTLED FOLDER

The real controller watches rehearsal phases on this machine. It ticks far more often than it would in use, which
changes nothing about one tick: between ticks a controller sleeps.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from probe import imported, peak_memory
from samples import search_of, started, write_phase_files

from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller import daemon as daemon_module
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.search import strategy as strategies
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store import control
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.agents.base import StopAnswer, StopRequest
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree

TICK_SECONDS: float = SearchConfig.model_fields["tick_seconds"].default
"""Between two ticks unless `search.yaml` says otherwise."""
_START_SECONDS = 120.0
_FIRST_JUDGED_STEP = 10


@dataclass(frozen=True, slots=True)
class LoginCost:
    """What one tick took, on average, with `phases` running beside `settled` ended ones.

    `start_cpu` is what the controller used until all phases ran; `processes` are those of the machine, which the
    local cluster looks through at each tick.
    """

    phases: int
    settled: int
    ticks: int
    cpu: float
    calls: float
    commits: float
    written_bytes: float
    start_cpu: float
    peak_memory: int
    processes: int
    modules: tuple[str, ...]

    @property
    def ticks_an_hour(self) -> float:
        """At the default interval."""
        return 3600.0 / TICK_SECONDS


class _NeverStops(Playbook):
    """Judges as ever, and lets everything go on, so that there is something to watch."""

    def judge(self, request: StopRequest) -> StopAnswer:
        """The playbook's answer, turned into CONTINUE."""
        return replace(super().judge(request), stop=False)


class _Counted(SearchDirectory):
    """Counts what is committed."""

    commits = 0

    def write_tree(self, tree: Tree, guard: Callable[[], None] | None = None) -> None:
        """Commit, and count it."""
        type(self).commits += 1
        super().write_tree(tree, guard)


def measure(phases: int, ticks: int, interval: float, settled: int, folder: Path, *, judging: bool) -> LoginCost:
    """Start `phases` phases under a controller in this process, watch them for `ticks` ticks, and cancel them.

    With `judging` the early stopper is asked about every phase at every tick, else never; its answer does not count.
    """
    daemon_module.make_agents = lambda *_: _NeverStops()
    tree = started(settled, phases)
    search_of(
        folder / "search",
        tree,
        max_parallel_phases=phases,
        budget={"iterations": len(tree)},
        # Nothing must end by itself while it is watched.
        early_stop={"enabled": judging, "interval_seconds": 0.8 * interval, "first_step": _FIRST_JUDGED_STEP},
        configuration={"epochs": 1000},
        rehearsal={"step_seconds": interval, "failure_rate": 0.0},
        validate_every_steps=1,  # phases are judged at most once for each validation
        live_views=False,  # asked for only when a phase ends, which none does here before it has been measured
    )
    directory = _Counted.open(folder / "search")
    directory.write_tree(directory.read_tree().replacing(*(_longer(node) for node in tree.active())))
    best = tree.best()
    for part in strategies.path(tree, best.id) if best else ():
        write_phase_files(directory, part.node)  # the early stopper compares with them, and reads no others
    with Daemon(directory) as daemon:
        controller = daemon.controller
        try:
            began, deadline = time.process_time(), time.monotonic() + _START_SECONDS
            while not _all_run(controller.tree, judging=judging) and time.monotonic() < deadline:
                daemon.tick()
                time.sleep(interval)
            start_cpu = time.process_time() - began
            before = (sum(daemon.calls.values()), _Counted.commits, _written())
            began = time.process_time()
            for _ in range(ticks):
                daemon.tick()
                time.sleep(interval)
            cpu = time.process_time() - began
            after = (sum(daemon.calls.values()), _Counted.commits, _written())
            if not _all_run(controller.tree, judging=judging):
                raise RuntimeError(f"not all phases run: {[node.status.value for node in controller.tree.active()]}")
            calls, commits, written = (late - early for early, late in zip(before, after, strict=True))
            return LoginCost(
                phases=phases,
                settled=settled,
                ticks=ticks,
                cpu=cpu / ticks,
                calls=calls / ticks,
                commits=commits / ticks,
                written_bytes=written / ticks,
                start_cpu=start_cpu,
                peak_memory=peak_memory(),
                processes=len(psutil.pids()),
                modules=tuple(imported()),
            )
        finally:
            _end(daemon, directory)


def _longer(node: Node) -> Node:
    return replace(node, total_steps=100_000)


def _all_run(tree: Tree, *, judging: bool) -> bool:
    least = 2 * _FIRST_JUDGED_STEP if judging else 1
    active = tree.active()
    return bool(active) and all(node.status is NodeStatus.RUNNING and (node.last_step or 0) >= least for node in active)


def _end(daemon: Daemon, directory: SearchDirectory) -> None:
    control.request_pause(directory)
    for node in daemon.controller.tree.active():
        control.request_cancel(directory, node.id)
    deadline = time.monotonic() + _START_SECONDS
    while daemon.controller.tree.active() and time.monotonic() < deadline:
        daemon.tick()
        time.sleep(0.2)


def _written() -> int:
    """Bytes that this process has passed to write calls so far; 0 where the kernel does not count them."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def measured(phases: int, ticks: int, interval: float, settled: int, *, judging: bool) -> LoginCost:
    """`measure` in a process of its own."""
    folder = tempfile.mkdtemp()
    command = [sys.executable, __file__, *map(str, (phases, ticks, interval, int(judging), settled, folder))]
    try:
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return LoginCost(**told | {"modules": tuple(told["modules"])})


if __name__ == "__main__":
    watched, looks, pause, judged, ended, place = sys.argv[1:]
    cost = measure(int(watched), int(looks), float(pause), int(ended), Path(place), judging=bool(int(judged)))
    print(json.dumps(asdict(cost)))
