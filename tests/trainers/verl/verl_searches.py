"""Searches over real VeRL with rollouts by vLLM on a test cluster, driven by the controller, and what they leave."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cluster_options import NODES
from searches import CPU_PROFILE, on_slurm
from verl_phases import build_model, weights_in, write_task

from llmzero_hpc.config import load_text
from llmzero_hpc.controller.creation import create
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.search.node import CheckpointReference, Ending, Node, NodeStatus, TransitionKind
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.store import control

if TYPE_CHECKING:
    from collections.abc import Callable

    from slurm_cluster import AccountedJob, SlurmTestCluster

    from llmzero_hpc.controller.tick import Outcome
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.metrics import MetricRow
    from llmzero_hpc.search.node import Attempt
    from llmzero_hpc.store.phase_directory import PhaseDirectory

VLLM_WIDTH = 64
TRAIN_ROWS = 24
_PATIENCE_SECONDS = 1800.0
_LOG_CHARACTERS = 4000


def settings(root: Path, cluster: dict[str, Any], *, tested: bool = True, **changes: Any) -> dict[str, Any]:
    """`search.yaml` of a small search in a folder, with its model and its task; `tested` is whether it is scored."""
    task = write_task(root / "task")
    return {
        "name": "small",
        "seed": 1,
        "trainer": "verl",
        "model": str(build_model(root / "model", VLLM_WIDTH)),
        "task": {**task.model_dump(mode="json"), **({} if tested else {"test": None})},
        "hardware": {"device": "cpu", "vllm": True},
        "live_views": False,
        "cluster": cluster,
        **changes,
    }


class VerlSearch:
    """A search whose jobs have VeRL, on `nodes` machines each.

    It goes through the controller, so that what the infrastructure ends is tried again; here a phase that fails by its
    own fault fails the test.
    """

    def __init__(self, slurm: SlurmTestCluster, root: Path, python: str, nodes: int, **changes: Any) -> None:
        self._slurm = slurm
        root.mkdir()
        profile = {**CPU_PROFILE, "virtual_environment": str(Path(python).parent.parent), "nodes": nodes}
        written = settings(root, on_slurm(root, profile), tick_seconds=1, early_stop={"enabled": False}, **changes)
        # VeRL is in the jobs' Python alone, so that nothing here can be asked whether it would take this.
        self.directory = create(
            load_text(yaml.safe_dump(written), "test"), root / "search", time.time(), lambda _: TRAIN_ROWS
        )

    @property
    def tree(self) -> Tree:
        """As it is on disk."""
        return self.directory.read_tree()

    def begin_after(self, other: VerlSearch, step: int, configuration: Configuration, total_steps: int) -> None:
        """Take over node 0 of another search, and propose a child of its checkpoint after `step` as node 1."""
        shutil.copytree(other.directory.phase(0).path, self.directory.phase(0).path)
        child = Node(
            id=1,
            kind=TransitionKind.EVOLVE,
            parent=0,
            seed=1,
            created_at=time.time(),
            status=NodeStatus.PROPOSED,
            resume=CheckpointReference(0, step),
            configuration=configuration,
            total_steps=total_steps,
        )
        self.directory.write_tree(Tree((other.tree[0], child)))

    def drive(self, is_there: Callable[[], object] = lambda: False) -> None:
        """Run a controller until something is there, or the search is over."""
        deadline = time.monotonic() + _PATIENCE_SECONDS

        def look(outcome: Outcome) -> None:
            failed = [node.id for node in self.tree if node.status is NodeStatus.FAILED]
            assert not failed, self.said(failed[0])
            assert time.monotonic() < deadline, f"{outcome}: {self.said(len(self.tree) - 1)}"
            if is_there():
                control.request_stop(self.directory)

        with Daemon(self.directory) as daemon:
            end = daemon.loop(look)
        assert end.signal is None, end.reason

    def rows(self, node: int) -> dict[int, MetricRow]:
        """Of all attempts of a phase, by step."""
        return {row.step: row for row in self.directory.metrics(node).rows}

    def raw_metrics(self, node: int) -> list[dict[str, float]]:
        """What VeRL itself called them, of every row that an attempt wrote."""
        files = [attempt.metrics for attempt in self.directory.phase(node).attempts()]
        return [json.loads(line)["raw"] for path in files if path.exists() for line in path.read_text().splitlines()]

    def weights(self, node: int) -> dict[int, bytes]:
        """Of all complete checkpoints of a phase."""
        return weights_in(self.directory.phase(node).checkpoints)

    def said(self, node: int) -> str:
        """The end of each log of a phase's trainer."""
        return "\n".join(map(_end, _logs(self.directory.phase(node))))

    def runs(self, attempts: tuple[Attempt, ...]) -> list[AccountedJob]:
        """The runs of these attempts in Slurm's books, but for those that the infrastructure failed."""
        found = []
        for attempt in attempts:
            assert attempt.job is not None
            rows = [row for row in self._slurm.sacct_rows() if row.job_id == attempt.job.job_id]
            found += rows[: -1 if attempt.ending is Ending.INFRASTRUCTURE_ERROR else None]
        return found

    def processes_left(self) -> list[bytes]:
        """Command lines of what is left of jobs on any machine when the queue is empty."""
        self._slurm.wait_for(lambda: not self._slurm.jobs_in_queue(), "an empty queue")
        found = [pid for node in NODES for pid in self._slurm.job_processes(node)]
        return [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found]

    def machines(self, node: int) -> list[str]:
        """On which a phase runs now."""
        attempt = self.tree[node].attempts[-1]
        assert attempt.job is not None
        (row,) = [row for row in self._slurm.jobs_in_queue() if row.job_id == attempt.job.job_id]
        return self._slurm.run("scontrol", "show", "hostnames", row.nodes).split()


def _logs(folder: PhaseDirectory) -> list[Path]:
    return [attempt.trainer_log for attempt in folder.attempts() if attempt.trainer_log.exists()]


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-_LOG_CHARACTERS:]
