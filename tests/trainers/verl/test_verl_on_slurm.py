"""The whole path on a real Slurm: jobs of two machines, Ray across them, VeRL with rollouts by vLLM, and a search."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from searches import CPU_PROFILE, on_slurm
from slurm_cluster import AccountedJob
from tiny_phases import phase_spec
from verl_phases import SMALL, attempt_of, build_model, rows_of, weights_of, write_task

from llmzero_hpc.cluster.base import JobRequest
from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.cluster.slurm import SlurmCluster
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.sections import Hardware, SlurmClusterConfig
from llmzero_hpc.store.marker import read_marker
from llmzero_hpc.store.phase_directory import PhaseDirectory
from llmzero_hpc.store.search_directory import SearchDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.verl.trainer import VerlTrainer

if TYPE_CHECKING:
    from slurm_cluster import SlurmTestCluster

    from llmzero_hpc.search.node import Job

pytestmark = [
    *(pytest.mark.verl, pytest.mark.vllm, pytest.mark.training, pytest.mark.slow),
    pytest.mark.timeout(3600),
]

PATIENCE_SECONDS = 900.0
LAST, EVERY = 30, 5
VLLM_WIDTH = 64
CLOSE = 1e-3
"""How far apart vLLM and VeRL may be on what the policy says of the same tokens; both count in float32."""


class VerlJobs:
    """Phases and evaluations as jobs of a test cluster, one attempt each."""

    def __init__(self, slurm: SlurmTestCluster, root: Path, python: str) -> None:
        self.slurm, self.root = slurm, root
        self._profile = {**CPU_PROFILE, "virtual_environment": Path(python).parent.parent}
        self._model, self._task = build_model(root / "model", VLLM_WIDTH), write_task(root / "task")

    def phase(self, node: int, nodes: int, **changes: Any) -> PhaseSpec:
        """Of phase 0, or what differs from it."""
        spec = phase_spec(
            self.root / f"phases/{node:04d}",
            self._model,
            self._task,
            node=node,
            configuration=SMALL,
            total_steps=LAST,
            validate_every_steps=EVERY,
            hardware=Hardware(device="cpu", nodes=nodes, vllm=True),
        )
        return replace(spec, **changes)

    def evaluation(self, of: PhaseSpec, step: int) -> EvaluationSpec:
        return EvaluationSpec(
            search=of.search,
            node=of.node,
            step=step,
            seed=of.seed,
            model=of.model,
            task=of.task,
            split=Split.TEST,
            adapter=checkpoint_path(of.checkpoints, step),
            max_response_length=of.validation_max_response_length,
            hardware=of.hardware,
            rehearsal=of.rehearsal,
            result=PhaseDirectory(self.root / "test").result,
        )

    def submit(self, spec: PhaseSpec | EvaluationSpec) -> Job:
        is_phase = isinstance(spec, PhaseSpec)
        folder = PhaseDirectory(spec.checkpoints.parent if is_phase else spec.result.parent)
        attempt = folder.attempt(1)
        attempt.create()
        write_specification(folder.specification, spec)
        planned = VerlTrainer().plan if is_phase else VerlTrainer().plan_evaluation
        return self._cluster(spec.hardware.nodes).submit(
            JobRequest(
                name=f"lz-small-{folder.path.name}-1",
                directory=attempt.path,
                plan=planned(folder.specification, attempt.path),
                attempt=1,
                devices=1,
                gpus=False,
                time_limit_seconds=None,
                nodes=spec.hardware.nodes,
                progress=folder.checkpoints,
            )
        )

    def cancel(self, job: Job) -> None:
        self._cluster(1).cancel(job)

    def wait_for_step(self, spec: PhaseSpec, step: int) -> None:
        """Wait until a step's row can be read, while its job runs."""

        def is_there() -> bool:
            assert read_marker(PhaseDirectory(spec.checkpoints.parent).attempt(1)) is None, self.said(spec)
            return step in rows_of(spec)

        self.slurm.wait_for(is_there, f"step {step}: {self.said(spec)}", PATIENCE_SECONDS)

    def ended(self, job: Job) -> list[AccountedJob]:
        """The runs of a job in the books, once it has ended; no process of it is left on any machine."""

        def look() -> list[AccountedJob]:
            if any(row.job_id == job.job_id for row in self.slurm.jobs_in_queue()):
                return []
            rows = [row for row in self.slurm.sacct_rows() if row.job_id == job.job_id]
            return rows if rows and all(row.ended_at for row in rows) else []

        rows = self.slurm.wait_for(look, f"the end of {job.name}", PATIENCE_SECONDS)
        left = [pid for node in range(1, 5) for pid in self.slurm.job_processes(f"node{node}")]  # type: ignore[arg-type]
        assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
        return rows

    def said(self, spec: PhaseSpec) -> str:
        """The end of a trainer's log."""
        log = PhaseDirectory(spec.checkpoints.parent).attempt(1).trainer_log
        return log.read_text(errors="replace")[-4000:] if log.exists() else ""

    def _cluster(self, nodes: int) -> SlurmCluster:
        settings = SlurmClusterConfig(kind="slurm", submit_timeout_seconds=30)
        return SlurmCluster(self.root / "phases", settings, ClusterProfile(**self._profile, nodes=nodes))


@pytest.fixture(scope="module")
def jobs(slurm: SlurmTestCluster, verl_python: str, tmp_path_factory: pytest.TempPathFactory) -> VerlJobs:
    return VerlJobs(slurm, tmp_path_factory.mktemp("search"), verl_python)


@dataclass(frozen=True)
class Preempted:
    """A phase on two machines that was preempted: as it stood then, and the runs of its job."""

    spec: PhaseSpec
    steps: list[int]
    weights: dict[int, bytes]
    runs: list[AccountedJob]


@pytest.fixture(scope="module")
def preempted(jobs: VerlJobs, slurm: SlurmTestCluster) -> Preempted:
    spec = jobs.phase(0, nodes=2)
    job = jobs.submit(spec)
    jobs.wait_for_step(spec, EVERY)
    slurm.run("sbatch", "--partition=high", "--nodelist=node1", "--exclusive", "--output=/dev/null", "--wrap", "true")
    row = next(row for row in slurm.jobs_in_queue() if row.job_id == job.job_id)
    assert row.nodes == "node[1-2]"
    slurm.wait_for(lambda: len(_runs(slurm, job)) > 1, "its second run", PATIENCE_SECONDS)
    steps, weights = list(rows_of(spec)), weights_of(spec)
    return Preempted(spec, steps, weights, jobs.ended(job))


def _runs(slurm: SlurmTestCluster, job: Job) -> list[AccountedJob]:
    return [row for row in slurm.sacct_rows() if row.job_id == job.job_id]


def test_a_preempted_phase_goes_on_with_its_optimizer_on_two_machines(preempted: Preempted, jobs: VerlJobs) -> None:
    import torch
    import torch.distributed.tensor  # its classes are in the file

    spec = preempted.spec
    first, second = preempted.runs
    assert (first.state, second.state) == ("REQUEUED", "COMPLETED"), jobs.said(spec)
    assert LAST not in preempted.steps
    rows, weights = rows_of(spec), weights_of(spec)
    validated = list(range(EVERY, LAST + 1, EVERY))
    assert list(rows) == list(range(1, LAST + 1))
    assert [step for step, row in rows.items() if row.validation_score is not None] == list(weights) == validated
    assert {step: weights[step] for step in preempted.weights} == preempted.weights
    assert len(set(weights.values())) == len(validated)
    assert (rows[LAST].validation_score or 0.0) > (rows[EVERY].validation_score or 0.0)
    # Adam counts its steps: those before the preemption are among them, on both machines.
    for rank in range(2):
        path = spec.training_state / f"global_step_{LAST}/actor/optim_world_size_2_rank_{rank}.pt"
        states = torch.load(path, weights_only=False)["state"].values()
        assert {int(state["step"]) for state in states} == {LAST * SMALL.mini_batches}


def test_vllm_samples_from_the_policy_that_is_trained(preempted: Preempted) -> None:
    lines = attempt_of(preempted.spec).metrics.read_text().splitlines()
    for raw in (json.loads(line)["raw"] for line in lines):
        assert abs(raw["rollout_corr/kl"]) < CLOSE
        assert raw["training/rollout_probs_diff_max"] < CLOSE
        assert not [name for name in raw if name.startswith("alarm/")]
    # The policy has moved away from the base model, so the adapter must have reached vLLM.
    assert rows_of(preempted.spec)[LAST].values["kl"] > 10 * CLOSE


def test_a_child_of_another_shape_starts_from_the_same_adapter_and_is_stopped_by_scancel(
    preempted: Preempted, jobs: VerlJobs
) -> None:
    parent = preempted.spec
    child = jobs.phase(
        1,
        nodes=1,
        configuration=SMALL.changed(learning_rate=0.0, batch_size=8, mini_batches=1, rollouts=2, max_response_length=4),
        first_step=LAST + 1,
        total_steps=2000,
        validate_every_steps=1,
        parent_adapter=checkpoint_path(parent.checkpoints, LAST),
    )
    job = jobs.submit(child)
    jobs.wait_for_step(child, LAST + 1)
    jobs.cancel(job)
    (run,) = jobs.ended(job)
    assert run.state == "CANCELLED by 0"
    weights = weights_of(child)
    assert weights
    assert set(weights.values()) == {weights_of(parent)[LAST]}
    row = rows_of(child)[LAST + 1]
    assert row.values["response_length_mean"] <= 4
    assert row.validation_score == pytest.approx(rows_of(parent)[LAST].validation_score, abs=0.02)


def test_the_adapter_is_scored_on_the_test_rows(preempted: Preempted, jobs: VerlJobs) -> None:
    spec = jobs.evaluation(preempted.spec, LAST)
    (run,) = jobs.ended(jobs.submit(spec))
    assert run.state == "COMPLETED"
    found = json.loads(spec.result.read_text())
    assert found["rows"] == 6
    assert found["score"] > 0


def test_a_search_of_five_nodes_with_the_playbook(
    clean_slurm: SlurmTestCluster, verl_python: str, tmp_path: Path
) -> None:
    """As its user runs it, from the environment that has VeRL."""
    task = write_task(tmp_path / "task")
    bounds = {"batch_size": (4, 8), "rollouts": (2, 4), "max_response_length": (4, 8), "epochs": (1, 2)}
    settings = {
        "name": "small",
        "seed": 1,
        "trainer": "verl",
        "model": str(build_model(tmp_path / "model", VLLM_WIDTH)),
        "task": task.model_dump(mode="json"),
        "hardware": {"device": "cpu"},
        "configuration": {**SMALL.values(), "epochs": 1},
        "bounds": {name: {"low": low, "high": high} for name, (low, high) in bounds.items()},
        "validate_every_steps": 2,
        "early_stop": {"interval_seconds": 0, "first_step": 2},
        "budget": {"iterations": 5},
        "tick_seconds": 0.5,
        "live_views": False,
        "cluster": on_slurm(tmp_path, CPU_PROFILE),
    }
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(settings))
    command = [verl_python, "-m", "llmzero_hpc.cli.main", "run", "search.yaml", "--state", "state"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    tree = SearchDirectory.open(tmp_path / "state" / "small").read_tree()
    assert len(tree) == 5
    assert {node.status for node in tree} <= {NodeStatus.COMPLETED, NodeStatus.EARLY_STOPPED}, done.stdout
    assert any(node.resume for node in tree)
    best = tree.best()
    assert best is not None
    assert tree.evaluation is not None
    assert tree.evaluation.score is not None
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "an empty queue")
