"""The whole path on a real Slurm: jobs of two machines, Ray across them, VeRL with rollouts by vLLM, and a search.

Everything is submitted and followed by the controller: what the infrastructure ends is tried again, as for any user.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml
from searches import CPU_PROFILE, on_slurm
from verl_phases import SMALL
from verl_searches import VerlSearch, settings

from llmzero_hpc.search.node import Ending, NodeStatus
from llmzero_hpc.store import control
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from slurm_cluster import SlurmTestCluster

pytestmark = [
    *(pytest.mark.verl, pytest.mark.vllm, pytest.mark.training, pytest.mark.slow),
    pytest.mark.timeout(3600),
]

LAST, EVERY = 30, 5
CLOSE = 1e-3
"""How far apart vLLM and VeRL may be on what the policy says of the same tokens; both count in float32."""


@dataclass(frozen=True)
class Preempted:
    """A search of one phase on two machines that was preempted: as the phase stood then; the search is over."""

    search: VerlSearch
    steps: list[int]
    weights: dict[int, bytes]


@pytest.fixture(scope="module")
def preempted(slurm: SlurmTestCluster, verl_python: str, tmp_path_factory: pytest.TempPathFactory) -> Preempted:
    search = VerlSearch(
        slurm,
        tmp_path_factory.mktemp("two") / "machines",
        verl_python,
        nodes=2,
        configuration={**SMALL.values(), "epochs": 5},
        validate_every_steps=EVERY,
        budget={"iterations": 1},
    )
    search.drive(lambda: EVERY in search.rows(0))
    machines = search.machines(0)
    assert len(machines) == 2
    urgent = (f"--nodelist={machines[0]}", "--exclusive", "--output=/dev/null", "--wrap", "true")
    slurm.run("sbatch", "--partition=high", *urgent)
    search.drive(lambda: any(attempt.restarts for attempt in search.tree[0].attempts))
    steps, weights = list(search.rows(0)), search.weights(0)
    search.drive()
    return Preempted(search, steps, weights)


def test_a_preempted_phase_goes_on_with_its_optimizer_on_two_machines(preempted: Preempted) -> None:
    import torch
    import torch.distributed.tensor  # its classes are in the file

    search = preempted.search
    (phase,) = search.tree
    assert phase.status is NodeStatus.COMPLETED
    first, second = search.runs(phase.attempts)
    # Slurm calls it by the one who was quicker: the job, which asks to be queued again, or Slurm itself.
    assert first.state in {"REQUEUED", "PREEMPTED"}, search.said(0)
    assert second.state == "COMPLETED", search.said(0)
    assert {attempt.ending for attempt in phase.attempts[:-1]} <= {Ending.INFRASTRUCTURE_ERROR}
    assert LAST not in preempted.steps
    rows, weights = search.rows(0), search.weights(0)
    validated = list(range(EVERY, LAST + 1, EVERY))
    assert list(rows) == list(range(1, LAST + 1))
    assert [step for step, row in rows.items() if row.validation_score is not None] == list(weights) == validated
    assert preempted.weights
    assert {step: weights[step] for step in preempted.weights} == preempted.weights
    assert len(set(weights.values())) == len(validated)
    assert (rows[LAST].validation_score or 0.0) > (rows[EVERY].validation_score or 0.0)
    # Adam counts its steps: those before the preemption are among them, on both machines.
    for rank in range(2):
        state = search.directory.phase(0).training_state / f"global_step_{LAST}"
        states = torch.load(state / f"actor/optim_world_size_2_rank_{rank}.pt", weights_only=False)["state"].values()
        assert {int(state["step"]) for state in states} == {LAST * SMALL.mini_batches}
    assert not search.processes_left()


def test_vllm_samples_from_the_policy_that_is_trained(preempted: Preempted) -> None:
    found = preempted.search.raw_metrics(0)
    assert len(found) >= LAST
    for raw in found:
        assert abs(raw["rollout_corr/kl"]) < CLOSE
        assert raw["training/rollout_probs_diff_max"] < CLOSE
        assert not [name for name in raw if name.startswith("alarm/")]
    # The policy has moved away from the base model, so the adapter must have reached vLLM.
    assert preempted.search.rows(0)[LAST].values["kl"] > 10 * CLOSE


def test_a_child_of_another_shape_starts_from_the_same_adapter_and_is_stopped_by_scancel(
    preempted: Preempted, slurm: SlurmTestCluster, verl_python: str, tmp_path: Path
) -> None:
    parent = preempted.search
    search = VerlSearch(
        slurm,
        tmp_path / "one",
        verl_python,
        nodes=1,
        tested=False,
        configuration=SMALL.values(),
        validate_every_steps=1,
        budget={"iterations": 2},
        bounds={"max_response_length": {"low": 4, "high": SMALL.max_response_length}},
    )
    other = SMALL.changed(learning_rate=0.0, batch_size=8, mini_batches=1, rollouts=2, max_response_length=4)
    search.begin_after(parent, LAST, other, total_steps=2000)
    search.drive(lambda: LAST + 1 in search.rows(1))
    control.request_cancel(search.directory, 1)
    search.drive(lambda: search.tree[1].status.is_final)
    child = search.tree[1]
    assert child.status is NodeStatus.CANCELLED, search.said(1)
    assert [run.state for run in search.runs(child.attempts)] == ["CANCELLED by 0"]
    assert not search.processes_left()
    weights = search.weights(1)
    assert weights
    assert set(weights.values()) == {parent.weights(0)[LAST]}
    row = search.rows(1)[LAST + 1]
    assert row.values["response_length_mean"] <= 4
    assert row.validation_score == pytest.approx(parent.rows(0)[LAST].validation_score, abs=0.02)


def test_the_adapter_is_scored_on_the_test_rows(preempted: Preempted) -> None:
    """On two machines, at the end of the search."""
    evaluation = preempted.search.tree.evaluation
    assert evaluation is not None
    assert preempted.search.runs(evaluation.attempts)[-1].state == "COMPLETED"
    place = evaluation.checkpoint
    found = json.loads(preempted.search.directory.evaluation("test", place.node, place.step).result.read_text())
    assert found["rows"] == 6
    assert found["score"] == evaluation.score
    assert found["score"] > 0


def test_a_search_of_five_nodes_with_the_playbook(
    clean_slurm: SlurmTestCluster, verl_python: str, tmp_path: Path
) -> None:
    """As its user runs it, from the environment that has VeRL."""
    bounds = {"batch_size": (4, 8), "rollouts": (2, 4), "max_response_length": (4, 8), "epochs": (1, 2)}
    written = settings(
        tmp_path,
        on_slurm(tmp_path, CPU_PROFILE),
        configuration={**SMALL.values(), "epochs": 1},
        bounds={name: {"low": low, "high": high} for name, (low, high) in bounds.items()},
        validate_every_steps=2,
        early_stop={"interval_seconds": 0, "first_step": 2},
        budget={"iterations": 5},
        tick_seconds=0.5,
    )
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(written))
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
