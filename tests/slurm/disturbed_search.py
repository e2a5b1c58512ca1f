"""A rehearsed search on a test cluster, with a controller of its own, for tests that disturb the cluster under it."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from searches import CPU_PROFILE, decisions, on_slurm, rehearsal
from slurm_cluster import send

from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.store.daemon_file import read_heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from slurm_cluster import SlurmTestCluster

    from llmzero_hpc.search.node import Attempt, Ending
    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.search_directory import SearchDirectory

STEP_SECONDS = 2.0
"""A phase of eight steps lasts long enough to be disturbed after its first checkpoint, also on a busy machine."""
ITERATIONS = 4
_TRAIN_ROWS = 64
_PATIENCE_SECONDS = 600.0
_CONTROLLER = """
import sys
from pathlib import Path
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.store.search_directory import SearchDirectory
with Daemon(SearchDirectory.open(Path(sys.argv[1]))) as daemon:
    assert daemon.loop().finished
"""


def settings(iterations: int, step_seconds: float) -> dict[str, Any]:
    """Of a search that comes to the same tree whatever happens to its jobs: a phase fails, and one is stopped early."""
    return {
        "seed": 15,
        "configuration": {"batch_size": 16, "epochs": 2, "max_response_length": 512},
        "bounds": {"batch_size": {"low": 16, "high": 16}, "epochs": {"low": 1, "high": 2}},
        "validate_every_steps": 2,
        "early_stop": {"interval_seconds": 0, "first_step": 4},
        "budget": {"iterations": iterations},
        "rehearsal": {"step_seconds": step_seconds, "train_rows": _TRAIN_ROWS, "failure_rate": 0.3},
        "tick_seconds": 0.3,
    }


@functools.cache
def undisturbed(iterations: int) -> Tree:
    """The same search on this machine alone."""
    with tempfile.TemporaryDirectory() as folder:
        local = {"kind": "local", "grace_seconds": 60}
        directory = rehearsal(Path(folder) / "search", local, **settings(iterations, 0.0))
        with Daemon(directory) as daemon:
            assert daemon.loop().finished
        return directory.read_tree()


class DisturbedSearch:
    """A search whose controller is at work since construction. Waiting for something ends with an AssertionError."""

    def __init__(
        self,
        cluster: SlurmTestCluster,
        folder: Path,
        *,
        iterations: int = ITERATIONS,
        step_seconds: float = STEP_SECONDS,
        changes: Mapping[str, Any] | None = None,
        **profile: Any,
    ) -> None:
        """`changes` are to the search's settings, and must not change its tree."""
        self.cluster = cluster
        quick = {"grace_seconds": 5, "submit_timeout_seconds": 30, "accounting_seconds": 10}
        section = on_slurm(folder, CPU_PROFILE | profile, **quick)
        values = settings(iterations, step_seconds) | dict(changes or {})
        self.directory: SearchDirectory = rehearsal(folder / "search", section, **values)
        self._iterations = iterations
        self._log = folder / "controller.log"
        with self._log.open("ab") as log:
            self._controller = subprocess.Popen(
                [sys.executable, "-c", _CONTROLLER, str(self.directory.root)],
                env={**os.environ, **cluster.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End the controller; an error gets a note of what happened until then."""
        self._controller.kill()
        self._controller.wait()
        if error is not None:
            for file in (self.directory.root / "events.jsonl", self._log, self.cluster.root / "log/slurmctld.log"):
                if file.exists():
                    error.add_note("\n".join(file.read_text().splitlines()[-40:]))

    def attempt(self, node: int) -> Attempt:
        """The newest attempt of a node, as soon as it has a job."""

        def found() -> Attempt | None:
            tree = self.directory.read_tree()
            attempt = tree[node].attempt if node < len(tree) else None
            return attempt if attempt and attempt.job else None

        attempt: Attempt = self._wait_for(found, f"a job of node {node}")
        return attempt

    def job_id(self, node: int) -> str:
        """Of a node's newest attempt."""
        job = self.attempt(node).job
        assert job is not None
        return job.job_id

    def mid_run(self, node: int) -> str:
        """Wait until a node has a checkpoint, as its controller knows, and much left to do; the id of its job."""
        with self.held(node) as job_id:
            return job_id

    @contextmanager
    def held(self, node: int) -> Iterator[str]:
        """As `mid_run`; the phase makes no step until this ends, however long its controller or the test may need."""

        def has_checkpoint() -> bool:
            tree = self.directory.read_tree()
            return node < len(tree) and bool(tree[node].checkpoints)

        self._wait_for(lambda: self.directory.metrics(node).points("val_score"), f"a score of node {node}")
        trainers = self._trainers(node)
        assert trainers, "the disturbance comes too late"
        send(trainers, signal.SIGSTOP)
        try:
            self._wait_for(has_checkpoint, f"a checkpoint of node {node}")
            assert not self.directory.read_tree()[node].status.is_final, "the disturbance comes too late"
            yield self.job_id(node)
        finally:
            send(trainers, signal.SIGCONT)

    def machine(self, job_id: str) -> str:
        """Where a job runs."""
        return next(job.nodes for job in self.cluster.jobs_in_queue() if job.job_id == job_id)

    def state(self, job_id: str) -> str:
        """Of a job, in squeue's words; empty where squeue does not show it."""
        return next((job.state for job in self.cluster.jobs_in_queue() if job.job_id == job_id), "")

    def is_over(self, node: int) -> bool:
        """Whether a node has its result."""
        tree = self.directory.read_tree()
        return node < len(tree) and tree[node].status.is_final

    def wait_until_over(self, node: int) -> None:
        """Wait for a node's result."""
        self._wait_for(lambda: self.is_over(node), f"the end of node {node}")

    def wait_for_marker(self, node: int) -> None:
        """Wait until the job of a node's newest attempt has said its last word, which its controller may not know."""
        attempt = self.directory.phase(node).attempt(self.attempt(node).number)
        self._wait_for(lambda: any(attempt.path.glob("marker*")), f"the marker of node {node}")

    def wait_for_ticks(self, count: int, *, of_outage: bool = False) -> None:
        """Wait until the controller has ticked so often, all the time unable to ask the cluster if `of_outage`."""

        def ticks() -> int:
            heartbeat = read_heartbeat(self.directory)
            return 0 if heartbeat is None or (of_outage and not heartbeat.last_error) else heartbeat.ticks

        first = self._wait_for(ticks, "a tick")
        self._wait_for(lambda: ticks() >= first + count, f"{count} ticks")

    def finish(self, *, all_booked: bool = True) -> Tree:
        """Wait for the end of the search; the tree that it came to, which is that of a search without disturbance.

        Each attempt had one job, and nothing of the search is left: no job, no process. With `all_booked` false the
        accounting may have missed jobs.
        """
        self._wait_for(lambda: self._controller.poll() is not None, "the end of the search")
        tree = self.directory.read_tree()
        assert decisions(tree) == decisions(undisturbed(self._iterations))
        self._assert_nothing_left()
        if self.cluster.options.accounting:
            self._assert_one_job_for_each_attempt(tree, all_booked=all_booked)
        return tree

    def _trainers(self, node: int) -> list[int]:
        own = str(self.directory.phase(node).specification).encode()
        found = []
        for pid in self.cluster.processes():
            with suppress(OSError):  # it ended in between
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"llmzero_hpc.trainers.rehearsal.train" in command and own in command:
                    found.append(pid)
        return found

    def _assert_nothing_left(self) -> None:
        own = self.directory.record.token
        self._wait_for(
            lambda: not [job for job in self.cluster.jobs_in_queue() if f"-{own}-" in job.name], "an empty queue"
        )
        root = str(self.directory.root).encode()

        def processes() -> list[int]:
            commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in self.cluster.processes()}
            return [pid for pid, command in commands.items() if command.exists() and root in command.read_bytes()]

        self._wait_for(lambda: not processes(), "the end of all processes of the search")

    def _assert_one_job_for_each_attempt(self, tree: Tree, *, all_booked: bool) -> None:
        attempts = [attempt for node in tree for attempt in node.attempts]
        attempts += tree.evaluation.attempts if tree.evaluation else ()
        expected = {(attempt.name, attempt.job.job_id) for attempt in attempts if attempt.job}
        own = f"-{self.directory.record.token}-"

        def booked() -> set[tuple[str, str]]:
            asked_for = self.cluster.sacct_rows({job_id for _, job_id in expected})
            rows = [*self.cluster.sacct_rows(), *asked_for]
            return {(row.name, row.job_id) for row in rows if own in row.name}

        if all_booked:
            self._wait_for(lambda: booked() >= expected, "the books")
        assert booked() <= expected

    def _wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        def met() -> Any:
            assert self._controller.poll() in {None, 0}, "the controller has failed"
            return condition()

        return self.cluster.wait_for(met, what, _PATIENCE_SECONDS)


def endings(tree: Tree, node: int) -> list[tuple[Ending | None, int]]:
    """How each attempt of a node ended, and how often the cluster had requeued it."""
    return [(attempt.ending, attempt.restarts) for attempt in tree[node].attempts]


def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The names with which tests of the asking module are to run."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    return [str(item.callspec.params["name"]) for item in items if item.module is request.module]


def side_by_side(disturbances: Mapping[str, Callable[[], None]]) -> Mapping[str, str]:
    """Run them all at once, as they mostly wait; what went wrong, by their names, empty where nothing did."""

    def tried(disturb: Callable[[], None]) -> str:
        try:
            disturb()
        except Exception:  # noqa: BLE001 - the test of that name reports it
            return traceback.format_exc()
        return ""

    # The threads find it made: a controller listens for signals, in a main thread only.
    for iterations in (1, ITERATIONS):
        undisturbed(iterations)
    with ThreadPoolExecutor(len(disturbances)) as threads:
        return dict(zip(disturbances, threads.map(tried, disturbances.values()), strict=True))
