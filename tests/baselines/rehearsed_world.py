"""Whole searches in this process: a memory cluster whose jobs the rehearsal trainer makes up."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from controller_world import MemoryJob, World

from llmzero_hpc.baselines.registry import make_agents, with_strategy
from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.store.atomic import write_json
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord
from llmzero_hpc.trainers.rehearsal.evaluate import evaluation
from llmzero_hpc.trainers.rehearsal.train import run
from llmzero_hpc.trainers.specification import read_evaluation, read_phase

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.tree import Tree

RANGES: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 3e-3, "log": True},
    "batch_size": [8, 16],
    "rollouts": [6, 8],
    "lora_rank": [8, 16],
}
"""Ranges in which the rehearsal has something to find."""


def settings(method: Any, **changes: Any) -> SearchConfig:
    """A search by that method; phases of 16 steps, validated every fourth."""
    start = {"batch_size": 8, "mini_batches": 1, "epochs": 2.0, "lora_rank": 8, "lora_alpha": 16}
    return SearchConfig.model_validate(
        {
            "name": "rehearsed",
            "trainer": "rehearsal",
            "model": "none",
            "task": {"name": "chains"},
            "configuration": start | {"max_response_length": 48, "learning_rate": 1e-3},
            "bounds": {"max_response_length": {"high": 64}},
            "validate_every_steps": 4,
            "early_stop": {"interval_seconds": 0, "first_step": 4},
            "budget": {"iterations": 6},
            "rehearsal": {"step_seconds": 0, "failure_rate": 0, "train_rows": 64},
            "live_views": False,
            "method": method,
        }
        | changes
    )


class Rehearsed(World):
    """A world in which every job that runs is worked off at once; a step takes a second."""

    def __init__(self, root: Path, config: SearchConfig) -> None:
        config = with_strategy(config)
        record = SearchRecord.new(config, 64, 0.0)
        super().__init__(root, config, make_agents(config, SearchDirectory(root, record)))

    def search(self, ticks: int = 200) -> Tree:
        """The tree of the whole search."""
        for _ in range(ticks):
            if self.tick().finished:
                return self.tree
            self.carry_out_cancellations()
            for job in self.live():
                self.work_off(job)
        raise AssertionError("the search did not end")

    def work_off(self, job: MemoryJob) -> None:
        """Start, train or score, and end."""
        job.state, job.started_at = JobState.RUNNING, self.clock.now
        specification = job.request.directory.parents[1] / "config.yaml"
        if "evaluate" in job.request.plan.command:
            spec = read_evaluation(specification)
            self.end(job)
            write_json(spec.result, asdict(evaluation(spec)))
            return
        phase = read_phase(specification)
        code = run(phase, job.request.directory)
        self.clock.now += phase.total_steps
        self.end(job, "completed" if code == 0 else "error", code)
