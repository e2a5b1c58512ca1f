"""What is said of a search is what its tree, record and heartbeat hold."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import report_samples as samples

from llmzero_hpc.report.data import JSON_FORMAT, SearchState, to_json, without_clock
from llmzero_hpc.search.node import NodeStatus, StopDecision, TransitionKind
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.sections import Budget, FilesTask, Hardware


def test_the_best_checkpoint_and_its_gain_over_node_0() -> None:
    best = samples.finished().best

    assert best is not None
    assert (best.node, best.step, best.score, best.provisional) == (5, 120, 0.839, False)
    assert best.gain == pytest.approx(0.271)


def test_the_best_strategy_ends_at_its_best_step_and_each_phase_where_the_next_one_resumed() -> None:
    phases = samples.finished().strategy

    assert [(phase.node, phase.first_step, phase.last_step) for phase in phases] == [
        (0, 1, 50),
        (1, 51, 80),
        (5, 81, 120),
    ]
    assert [phase.score for phase in phases] == [0.568, 0.711, 0.839]
    assert phases[0].gain is None
    assert [phase.gain for phase in phases[1:]] == [pytest.approx(0.143), pytest.approx(0.128)]
    assert [change.name for change in phases[2].changes] == [
        "max_response_length", "learning_rate", "batch_size", "mini_batches",
    ]  # fmt: skip


def test_changes_count_against_where_a_phase_came_from() -> None:
    nodes = samples.finished().nodes

    assert nodes[0].compared_with is None
    assert nodes[0].changes == ()
    assert nodes[5].compared_with == 1, "the phase it resumed from"
    assert nodes[4].compared_with == 2, "the failure it repairs"
    assert [(change.name, change.before, change.after) for change in nodes[4].changes] == [
        ("learning_rate", 2e-2, 1e-3)
    ]
    assert nodes[6].compared_with == 0, "a later start from scratch stands against node 0"
    assert nodes[1].changes[0].parameter_class == "capacity"


def test_what_was_reported_after_an_early_stop_does_not_count() -> None:
    data = samples.finished()

    assert data.nodes[3].last_step == 100, "the tree has seen step 101"
    assert data.series[3].rows[-1].step == 100
    assert data.nodes[3].steps_done == 20
    assert data.nodes[3].steps_planned == 40


def test_trajectories_hold_a_value_a_phase_and_count_reversals() -> None:
    found = {item.name: item for item in samples.finished().trajectories}

    assert found["max_response_length"].values == (20, 64, 52)
    assert found["max_response_length"].reversals == 1
    assert found["learning_rate"].values == (1e-3, 5e-4, 3.5e-4)
    assert found["learning_rate"].reversals == 0
    assert found["lora_rank"].is_constant


def test_keys_of_the_trainer_have_trajectories_too() -> None:
    tree = samples.finished_tree()
    second = tree[1]
    assert second.configuration is not None
    changed = replace(second, configuration=replace(second.configuration, overrides={"optimizer.beta": 0.9}))
    found = {item.name: item for item in samples.data(tree.replacing(changed)).trajectories}

    assert found["optimizer.beta"].values == (None, 0.9, None)
    assert found["optimizer.beta"].parameter_class == "override"


def test_best_so_far_never_falls_and_compute_adds_up() -> None:
    progress = samples.finished().progress

    assert [point.best for point in progress] == [0.568, 0.711, 0.711, 0.711, 0.711, 0.839, 0.839, 0.839]
    assert [point.iteration for point in progress] == list(range(1, 9))
    assert progress[-1].device_hours == pytest.approx((48 * 5 + 9 + 25.5 + 2) / 3600)


def test_a_phase_cancelled_before_it_was_submitted_is_no_iteration() -> None:
    tree = samples.finished_tree()
    data = samples.data(tree.replacing(replace(tree[7], attempts=())))

    assert len(data.progress) == 7
    assert data.budget[0].used == 7


def test_budget_counts_the_evaluation_and_is_named_after_the_device() -> None:
    data = samples.finished(
        hardware=Hardware(gpus=2), budget=Budget(iterations=8, device_hours=0.5, deadline_hours=1.0)
    )
    compute = data.budget[1]

    assert data.device_unit == compute.unit == "GPU-hours"
    assert compute.used == pytest.approx((48 * 5 + 9 + 25.5 + 2 + 6) / 3600)
    assert compute.left == pytest.approx(0.5 - compute.used)
    assert data.budget[2].used == pytest.approx(1000 / 3600)
    assert samples.finished().device_unit == "CPU-hours"


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ({}, SearchState.RUNNING),
        ({"paused": True}, SearchState.PAUSED),
        ({"pulse_age": 1e4}, SearchState.CONTROLLER_GONE),
        ({"pulse_age": None}, SearchState.CONTROLLER_GONE),
        ({"error": "squeue: timeout"}, SearchState.WAITING),
    ],
)
def test_the_state_of_a_search_with_work_left(arguments: dict[str, object], state: SearchState) -> None:
    data = samples.running(**arguments)

    assert data.state is state
    assert data.next_step


def test_a_search_is_finished_when_its_test_score_is_there_whatever_the_controller_does() -> None:
    tree = samples.finished_tree()

    assert samples.finished(pulse_age=1e6).state is SearchState.FINISHED
    assert samples.data(replace(tree, evaluation=None)).state is SearchState.RUNNING, "the test score is still to come"
    assert samples.data(Tree(), pulse_age=None).state is SearchState.NOT_STARTED


def test_an_exhausted_search_is_finished_and_says_so() -> None:
    first = replace(samples.finished_tree()[0], checkpoints=())
    data = samples.data(Tree((first,)))

    assert data.state is SearchState.FINISHED
    assert data.next_step == "Nothing: no phase is left to expand, the search is over."


def test_without_a_test_split_a_search_ends_with_its_budget() -> None:
    task = FilesTask(name="files", train=Path("train"), validation=Path("dev"), reward=Path("reward.py"))
    tree = replace(samples.finished_tree(), evaluation=None)

    assert samples.data(tree, task=task).state is SearchState.FINISHED


def test_rehearsal_is_simulated_and_training_is_not() -> None:
    assert samples.finished(trainer="rehearsal").simulated
    assert not samples.finished().simulated


def test_an_active_best_is_provisional() -> None:
    tree = samples.running_tree()
    best = replace(tree[3], checkpoints=samples.finished_tree()[5].checkpoints)
    data = samples.data(tree.replacing(best))

    assert data.best is not None
    assert data.best.provisional
    assert [phase.node for phase in data.strategy] == [0, 1, 3]


def test_json_is_plain_stable_and_complete() -> None:
    data = samples.running()
    plain = json.loads(json.dumps(to_json(data), allow_nan=False))

    assert plain["format"] == JSON_FORMAT
    assert set(plain) == {
        "format", "name", "state", "paused", "simulated", "next_step", "generated_at", "best", "test", "nodes",
        "strategy", "trajectories", "progress", "budget", "device_unit", "controller", "provenance", "model", "costs",
    }  # fmt: skip
    assert plain["state"] == "running"
    assert plain["budget"][0] == {
        "name": "iterations", "unit": "iterations", "used": 5, "limit": 8, "left": 3, "reserved": 0.0, "estimated": 0.0,
    }  # fmt: skip
    node = plain["nodes"][3]
    assert (node["status"], node["kind"], node["resume_node"], node["resume_step"]) == ("running", "evolve", 1, 80)
    assert node["curves"]["val_score"] == [[90, 0.69], [100, 0.7]]
    assert plain["controller"]["age_seconds"] == 3.0


def test_without_clock_equals_for_two_runs_that_differ_in_times_costs_and_attempts_only() -> None:
    tree = samples.finished_tree()
    nodes = []
    for node in tree:
        slow = tuple(replace(attempt, started_at=9.0, device_seconds=99.0) for attempt in node.attempts)
        stop = node.stop and StopDecision(node.stop.step, node.stop.reason, node.stop.author, 5.0)
        late = node.last_step + 3 if node.last_step is not None and node.stop else node.last_step
        nodes.append(replace(node, attempts=slow * 2, created_at=1.0, stop=stop, last_step=late))
    one, other = samples.finished(), samples.data(replace(tree, nodes=tuple(nodes)), pulse_age=None)

    assert one != other
    assert without_clock(one) == without_clock(other)


def test_without_clock_still_sees_a_different_score() -> None:
    tree = samples.finished_tree()
    changed = tree.replacing(replace(tree[6], checkpoints=()))

    assert without_clock(samples.finished()) != without_clock(samples.data(changed))


def test_text_of_agents_carries_no_control_characters() -> None:
    tree = samples.finished_tree()
    rationale = tree[1].rationale
    assert rationale is not None
    evil = replace(tree[1], rationale=replace(rationale, diagnosis="\x1b[2Jwiped\n\ud800 \x9b31m"), problem="\x07bell")
    node = samples.data(tree.replacing(evil)).nodes[1]

    assert (node.diagnosis + node.problem).isprintable()
    assert "wiped" in node.diagnosis


def test_every_status_and_kind_is_reported() -> None:
    nodes = samples.finished().nodes

    assert {node.kind for node in nodes} == set(TransitionKind)
    assert nodes[2].status is NodeStatus.FAILED
    assert nodes[2].problem == "loss is not finite at step 58"
    assert nodes[2].pruned
    assert nodes[7].status is NodeStatus.CANCELLED


def test_json_needs_no_heavy_module() -> None:
    code = (
        "import sys; import llmzero_hpc.report.reading, llmzero_hpc.report.data;"
        "print([name for name in ('numpy', 'rich', 'matplotlib', 'h5py', 'jinja2', 'torch') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"
