"""A cluster in memory whose jobs live and die on command: breadth for the controller's tests.

The real local cluster runs in `test_kills.py`; here every ending, outage and lost answer can be had in microseconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.cluster.base import Cluster, JobObservation, JobRequest, JobState, Preview
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller.desk import Desk
from llmzero_hpc.controller.house import House
from llmzero_hpc.controller.submission import Submission
from llmzero_hpc.controller.tick import Controller, Outcome
from llmzero_hpc.controller.views import Views
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.search.node import Job
from llmzero_hpc.store.lease import Lease
from llmzero_hpc.store.marker import Marker, write_marker
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord
from llmzero_hpc.trainers.base import LaunchPlan, Trainer
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.specification import read_phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llmzero_hpc.agents.base import Agents
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree


class MemoryTrainer(Trainer):
    """Plans nothing that runs; the world plays the trainer's part."""

    name: ClassVar[str] = "memory"

    def check(self, config: SearchConfig) -> None:
        """Always fine."""

    def problems(self, config: SearchConfig, configuration: Configuration) -> list[str]:
        """None."""
        return []

    def train_rows(self, config: SearchConfig) -> int:
        """64."""
        return 64

    def plan(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """A command that is never run."""
        return LaunchPlan(("train", str(spec_file), str(attempt_directory)))

    def plan_evaluation(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """A command that is never run."""
        return LaunchPlan(("evaluate", str(spec_file), str(attempt_directory)))


@dataclass
class MemoryJob:
    """A job and its request; `state` None means that the cluster has forgotten it."""

    job: Job
    request: JobRequest
    state: JobState | None
    started_at: float | None = None
    steps: int = 0


class MemoryCluster(Cluster):
    """Jobs in a dictionary. `out_of_reach` makes every call fail; `loses_answers` accepts a job and then fails."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.jobs: dict[str, MemoryJob] = {}
        self.submissions: list[str] = []
        self.out_of_reach = False
        self.loses_answers = False
        self.refuses = False
        self.cancelled: list[str] = []

    def submit(self, request: JobRequest) -> Job:
        """Accept, unless told otherwise."""
        self.calls["submit"] += 1
        if self.out_of_reach:
            raise ClusterError("slurmctld does not answer")
        if self.refuses:
            raise ClusterError("invalid partition")
        self.submissions.append(request.name)
        job = Job(str(len(self.submissions)), request.name, self.clock.now)
        self.jobs[request.name] = MemoryJob(job, request, JobState.PENDING)
        if self.loses_answers:
            raise ClusterError("timed out")
        return job

    def preview(self, request: JobRequest) -> Preview:
        """Its name."""
        return Preview(request.name, "at once")

    def find(self, name: str, directory: Path) -> Job | None:
        """By name."""
        if self.out_of_reach:
            raise ClusterError("slurmctld does not answer")
        return self.jobs[name].job if name in self.jobs else None

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, JobObservation]:
        """Those that are not forgotten."""
        if self.out_of_reach:
            raise ClusterError("slurmctld does not answer")
        known = (self.jobs[job.name] for job in jobs if job.name in self.jobs)
        return {one.job.name: JobObservation(one.state, one.started_at) for one in known if one.state is not None}

    def cancel(self, job: Job) -> None:
        """Remember the wish; the world carries it out."""
        if self.out_of_reach:
            raise ClusterError("slurmctld does not answer")
        self.cancelled.append(job.name)


@dataclass
class Clock:
    """Time that moves when told to."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


def small_config(**changes: object) -> SearchConfig:
    """A search of phases with eight steps, validated every second."""
    settings: dict[str, object] = {
        "name": "world",
        "trainer": "rehearsal",
        "model": "none",
        "task": {"name": "chains"},
        "configuration": {"batch_size": 8, "mini_batches": 1, "epochs": 1.0, "lora_rank": 8},
        "validate_every_steps": 2,
        "early_stop": {"enabled": False},
        "budget": {"iterations": 6},
        "live_views": False,
        "max_attempts": 3,
    }
    return SearchConfig.model_validate(settings | changes)


class World:
    """A search directory, a memory cluster, and a controller that may be killed and started again."""

    def __init__(self, root: Path, config: SearchConfig, agents: Agents | None = None) -> None:
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock)
        self.agents = agents or Playbook()
        self.directory = SearchDirectory.create(root, SearchRecord.new(config, 64, self.clock.now))
        self.config = config
        self._start()

    def _start(self) -> None:
        trainer = MemoryTrainer()
        self.lease = Lease.acquire(self.directory)
        self.controller = Controller(
            House(
                directory=self.directory,
                lease=self.lease,
                cluster=self.cluster,
                trainer=trainer,
                agents=self.agents,
                # Rules answer at once, and how busy the machine is must not change what a tick does.
                desk=Desk(prompt_seconds=300.0),
                submission=Submission(self.directory, self.cluster, trainer, self.clock, self.lease.check),
                views=Views(self.directory.root, live=False),
                clock=self.clock,
            )
        )

    def restart(self) -> None:
        """As after SIGKILL: whatever was not on disk is gone."""
        self.lease.release()
        self.directory = SearchDirectory.open(self.directory.root)
        self._start()

    def tick(self, seconds: float = 1.0) -> Outcome:
        """Let time pass, then reconcile."""
        self.clock.now += seconds
        return self.controller.tick()

    @property
    def tree(self) -> Tree:
        """The tree on disk."""
        return self.directory.read_tree()

    def job_of(self, node: Node) -> MemoryJob:
        """The newest job of a node."""
        attempt = node.attempts[-1]
        return self.cluster.jobs[attempt.name]

    def live(self) -> list[MemoryJob]:
        """Jobs that the cluster has pending or running."""
        return [job for job in self.cluster.jobs.values() if job.state is not None and job.state.is_live]

    def train(self, job: MemoryJob, scores: Sequence[float]) -> None:
        """Start a job if needed and make one validated pair of steps for each score."""
        if job.state is JobState.PENDING:
            job.state, job.started_at = JobState.RUNNING, self.clock.now
        if "evaluate" in job.request.plan.command:
            return
        spec = read_phase(job.request.directory.parents[1] / "config.yaml")
        writer = MetricsWriter(job.request.directory / "metrics.jsonl", job.request.attempt, 0)
        done = [int(path.name.removeprefix("step_")) for path in spec.checkpoints.glob("step_*")]
        step = max(done, default=spec.first_step - 1)
        for score in scores:
            for _ in range(spec.validate_every_steps):
                step += 1
                values = {"reward_mean": score, "kl": 0.01, "entropy": 1.0, "grad_norm": 0.5}
                if spec.is_validated(step):
                    make_checkpoint(checkpoint_path(spec.checkpoints, step))
                    values["val_score"] = score
                writer.write(step, values)
                if step == spec.last_step:
                    return

    def end(self, job: MemoryJob, outcome: str = "completed", exit_code: int = 0, problem: str = "") -> None:
        """The job writes its marker and is gone from the cluster's live list."""
        if job.started_at is None:
            job.started_at = self.clock.now
        if "evaluate" in job.request.plan.command and outcome == "completed":
            result = job.request.directory.parents[1] / "result.json"
            result.write_text(json.dumps({"score": 0.5, "subtask_scores": {"all": 0.5}, "rows": 10}))
        marker = Marker(
            name=job.job.name,
            attempt=job.request.attempt,
            restart=0,
            started_at=job.started_at,
            ended_at=self.clock.now,
            exit_code=exit_code,
            outcome=outcome,
            problem=problem,
        )
        write_marker(AttemptDirectory(job.request.directory), marker)
        job.state = JobState.COMPLETED if exit_code == 0 else JobState.FAILED

    def carry_out_cancellations(self) -> None:
        """Jobs that were to be cancelled end."""
        for name in self.cluster.cancelled:
            job = self.cluster.jobs[name]
            if job.state is not None and job.state.is_live:
                self.end(job, "terminated", -15)
                job.state = JobState.CANCELLED
        self.cluster.cancelled.clear()

    def finish(self, scores: Sequence[float], limit: int = 200) -> Outcome:
        """Run the rest of the search: every phase completes, its best score drawn from `scores` by node."""
        for _ in range(limit):
            outcome = self.tick()
            if outcome.finished:
                return outcome
            self.carry_out_cancellations()
            for job in self.live():
                best = scores[len(self.cluster.submissions) % len(scores)]
                self.train(job, [best - 0.02, best, best - 0.01, best - 0.01])
                self.end(job)
        raise AssertionError("the search did not end")


def make_checkpoint(path: Path) -> None:
    """What counts as a complete adapter."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").write_bytes(b"weights")
