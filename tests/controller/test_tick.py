"""The tick against a cluster in memory: every ending, outages, lost answers, restarts at any point."""

from __future__ import annotations

import itertools
import types
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from controller_world import World, small_config

from llmzero_hpc.agents.base import FailureRequest, Proposal, ProposalRequest, Repair, StopAnswer, StopRequest
from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.errors import LeaseError
from llmzero_hpc.search.node import Ending, NodeStatus, TransitionKind
from llmzero_hpc.store import control
from llmzero_hpc.store.events import read_events
from llmzero_hpc.store.lease import Lease

if TYPE_CHECKING:
    from llmzero_hpc.agents.base import Agents
    from llmzero_hpc.cluster.base import JobRequest
    from llmzero_hpc.search.node import Job


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "s", small_config())


def test_a_search_runs_to_its_budget_and_scores_the_best_once(world: World) -> None:
    outcome = world.finish([0.3, 0.5, 0.4, 0.6])
    tree = world.tree
    assert outcome.finished
    assert len(tree) == 6
    assert all(node.status is NodeStatus.COMPLETED and len(node.attempts) == 1 for node in tree)
    assert tree.evaluation is not None
    assert tree.evaluation.score == 0.5
    best = tree.best()
    assert best is not None
    assert tree.evaluation.checkpoint.node == best.id
    evaluations = [name for name in world.cluster.submissions if "-test-" in name]
    assert len(evaluations) == 1
    assert world.tick().finished
    assert world.cluster.submissions.count(evaluations[0]) == 1


def test_the_intent_is_on_disk_before_the_cluster_is_asked(world: World) -> None:
    seen: list[NodeStatus] = []
    submit = world.cluster.submit

    def spying(request: JobRequest) -> Job:
        seen.append(world.tree[0].status)
        assert world.tree[0].attempts[-1].name == request.name
        return submit(request)

    world.cluster.submit = spying  # type: ignore[method-assign]
    world.tick()
    assert seen == [NodeStatus.SUBMITTING]


def test_an_answer_that_was_lost_is_adopted_not_doubled(world: World) -> None:
    world.cluster.loses_answers = True
    world.tick()
    assert world.tree[0].status is NodeStatus.PENDING
    assert len(world.cluster.submissions) == 1


def test_a_crash_between_acceptance_and_record_is_healed_by_name(world: World) -> None:
    world.tick()
    node = world.tree[0]
    forgotten = replace(node, status=NodeStatus.SUBMITTING, attempts=(replace(node.attempts[0], job=None),))
    world.directory.write_tree(world.tree.replacing(forgotten))
    world.restart()
    world.tick()
    assert world.tree[0].attempts[0].job == node.attempts[0].job
    assert len(world.cluster.submissions) == 1


def test_an_outage_of_the_cluster_changes_nothing_and_is_said(world: World) -> None:
    world.tick()
    world.train(world.live()[0], [0.3])
    world.tick()
    before = world.tree
    world.cluster.out_of_reach = True
    for _ in range(50):
        outcome = world.tick(3600)
        assert "cannot be asked" in outcome.waiting_for
    assert world.tree == before
    world.cluster.out_of_reach = False
    assert world.finish([0.4]).finished


def test_an_outage_during_submission_waits_and_submits_once(world: World) -> None:
    world.cluster.out_of_reach = True
    for _ in range(5):
        world.tick()
    assert world.tree[0].status is NodeStatus.SUBMITTING
    world.cluster.out_of_reach = False
    world.tick()
    assert world.tree[0].status is NodeStatus.PENDING
    assert len(world.cluster.submissions) == 1


def test_what_the_cluster_refuses_is_tried_again_ever_less_often_until_it_is_taken(world: World) -> None:
    world.cluster.refuses = True
    pauses = []
    for _ in range(200):
        before = world.cluster.calls["submit"]
        waiting_for = world.tick(10.0).waiting_for
        assert "invalid partition" in waiting_for
        if world.cluster.calls["submit"] > before:
            pauses.append(world.clock.now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(pauses)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= world.config.tick_seconds + 10.0
    assert gaps[-1] > 8 * gaps[0]
    assert world.tree[0].status is NodeStatus.SUBMITTING
    world.cluster.refuses = False
    for _ in range(200):
        world.tick(10.0)
    assert len(world.cluster.submissions) == 1
    assert len(world.tree[0].attempts) == 1


def test_a_phase_that_is_cancelled_while_the_cluster_refuses_it_ends(world: World) -> None:
    world.cluster.refuses = True
    world.tick()
    control.request_cancel(world.directory, 0)
    world.tick()
    world.tick()
    first = world.tree[0]
    assert first.status is NodeStatus.CANCELLED
    assert first.attempts[0].ending is Ending.LAUNCH_FAILURE


@pytest.mark.parametrize("state", [None, JobState.PREEMPTED, JobState.NODE_FAILURE, JobState.TIME_LIMIT])
def test_infrastructure_endings_continue_the_same_phase(world: World, state: JobState | None) -> None:
    world.tick()
    job = world.live()[0]
    world.train(job, [0.3])
    world.tick()
    job.state = state
    world.tick()
    assert world.tree[0].status is NodeStatus.RUNNING, "one witness alone is not believed at once"
    world.tick(world.config.cluster.grace_seconds + 1)
    node = world.tree[0]
    assert len(node.attempts) == 2
    assert node.attempts[0].ending is not None
    assert node.attempts[0].ending.is_infrastructure
    assert node.attempts[1].resumed_step == 2
    assert world.finish([0.4]).finished
    assert world.tree[0].status is NodeStatus.COMPLETED


def test_a_job_that_is_missing_for_a_moment_is_not_given_up(world: World) -> None:
    world.tick()
    job = world.live()[0]
    world.train(job, [0.3])
    world.tick()
    job.state = None
    world.tick(1)
    job.state = JobState.RUNNING
    world.tick(60)
    node = world.tree[0]
    assert len(node.attempts) == 1
    assert node.attempts[0].missing_since is None


def test_attempts_that_gain_nothing_end_as_a_failure(world: World) -> None:
    for _ in range(3):
        world.tick()
        world.train(world.live()[0], [])
        world.live()[0].state = None
        world.tick()
        world.tick(100)
    assert world.tree[0].status is NodeStatus.FAILED
    assert "gained no checkpoint" in world.tree[0].problem


def test_a_marker_of_another_attempt_is_no_witness(world: World) -> None:
    world.tick()
    job = world.live()[0]
    world.train(job, [0.3])
    world.end(job)
    stale = job.request.directory / "marker.json"
    stale.write_text(stale.read_text().replace(job.job.name, "lz-world-0000-0000-9"))
    world.tick()
    assert world.tree[0].status is NodeStatus.RUNNING


def test_an_error_of_the_trainer_is_repaired_by_a_debug_phase(world: World) -> None:
    world.tick()
    job = world.live()[0]
    world.train(job, [0.3])
    (job.request.directory / "trainer.log").write_text("torch.OutOfMemoryError: CUDA out of memory\n")
    world.end(job, "error", 1)
    world.tick()
    assert world.tree[0].status is NodeStatus.FAILED
    assert world.tree[1].kind is TransitionKind.DEBUG
    assert world.tree[1].repairs == 0
    assert world.finish([0.4]).finished


class Stopper(Playbook):
    """Stops every phase that is compared with another, as soon as it may."""

    def judge(self, request: StopRequest) -> StopAnswer:
        return StopAnswer(stop=True, reason="it never catches up", author="test")


def test_a_proposer_knows_what_is_left_of_the_compute(tmp_path: Path) -> None:
    asked: list[ProposalRequest] = []

    class Asking(Playbook):
        def propose(self, request: ProposalRequest) -> Proposal:
            asked.append(request)
            return super().propose(request)

    budget = {"iterations": 3, "device_hours": 100.0}
    world = World(tmp_path / "s", small_config(budget=budget), Asking())
    world.tick()
    for scores in ([0.5, 0.5, 0.5, 0.6], [0.6, 0.6, 0.6, 0.6]):
        [job] = world.live()
        world.train(job, scores)
        world.clock.now += 3600
        world.end(job)
        world.tick()
    spent = [sum(node.device_seconds for node in world.tree.nodes[:count]) / 3600 for count in (1, 2)]
    assert [request.device_hours_left for request in asked] == [pytest.approx(100.0 - used) for used in spent]
    assert spent[1] > spent[0] >= 1


def test_early_stop_decides_on_disk_before_it_cancels(tmp_path: Path) -> None:
    world = World(tmp_path / "s", small_config(early_stop={"interval_seconds": 0, "first_step": 2}), Stopper())
    world.tick()
    first = world.live()[0]
    world.train(first, [0.5, 0.5, 0.5, 0.5])
    world.end(first)
    world.tick()
    second = world.live()[0]
    world.train(second, [0.2, 0.3, 0.9])
    world.tick()
    node = world.tree[1]
    assert node.stop is not None
    assert node.stop.reason == "it never catches up"
    assert world.cluster.cancelled == [second.job.name]
    world.carry_out_cancellations()
    world.tick()
    node = world.tree[1]
    assert node.status is NodeStatus.EARLY_STOPPED
    assert node.stop.step == node.first_step + 1
    assert [point.score for point in node.checkpoints] == [0.2], "what came after the decision does not count"


def test_a_judgement_that_is_owed_holds_a_phase_that_has_ended(tmp_path: Path) -> None:
    world = World(tmp_path / "s", small_config(early_stop={"interval_seconds": 0, "first_step": 2}), Stopper())
    world.finish([0.5])
    assert [node.status for node in world.tree][1:] == [NodeStatus.EARLY_STOPPED] * 5


def test_an_agent_that_raises_never_stops_a_run(tmp_path: Path) -> None:
    class Broken(Playbook):
        def propose(self, request: ProposalRequest) -> Proposal:
            raise RuntimeError("no endpoint")

        def judge(self, request: StopRequest) -> StopAnswer:
            raise RuntimeError("no endpoint")

    world = World(tmp_path / "s", small_config(early_stop={"interval_seconds": 0, "first_step": 2}), Broken())
    assert world.finish([0.4, 0.5]).finished
    assert all(node.status is NodeStatus.COMPLETED for node in world.tree)
    assert {node.rationale.author for node in world.tree if node.rationale} == {"default", "fallback"}


def bad_proposals() -> dict[str, Agents]:
    class OutOfBounds(Playbook):
        def propose(self, request: ProposalRequest) -> Proposal:
            answer = super().propose(request)
            return replace(answer, configuration=answer.configuration.changed(temperature=99.0))

    class ForeignCheckpoint(Playbook):
        def propose(self, request: ProposalRequest) -> Proposal:
            return replace(super().propose(request), resume_step=12345)

    class OtherRank(Playbook):
        def propose(self, request: ProposalRequest) -> Proposal:
            answer = super().propose(request)
            if answer.resume_step is None:
                return answer
            return replace(answer, configuration=answer.configuration.changed(lora_rank=64))

    return {"bounds": OutOfBounds(), "checkpoint": ForeignCheckpoint(), "rank": OtherRank()}


@pytest.mark.parametrize("kind", ["bounds", "checkpoint", "rank"])
def test_no_unusable_answer_reaches_the_cluster(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path / "s", small_config(), bad_proposals()[kind])
    assert world.finish([0.4, 0.5]).finished
    for node in world.tree:
        assert node.configuration is not None
        assert node.configuration.problems() == []
        assert node.configuration.lora_rank == 8
        if node.resume:
            assert node.resume.step in {point.step for point in world.tree[node.resume.node].checkpoints}


def test_an_unusable_repair_is_replaced(tmp_path: Path) -> None:
    class BadRepair(Playbook):
        def repair(self, request: FailureRequest) -> Repair:
            answer = super().repair(request)
            return Repair(answer.configuration.changed(batch_size=-1), answer.rationale)

    world = World(tmp_path / "s", small_config(), BadRepair())
    world.tick()
    world.train(world.live()[0], [])
    world.end(world.live()[0], "error", 1)
    world.tick()
    assert world.tree[1].rationale is not None
    assert world.tree[1].rationale.author == "fallback"


def test_pause_starts_nothing_and_resume_goes_on(world: World) -> None:
    world.tick()
    control.request_pause(world.directory)
    job = world.live()[0]
    world.train(job, [0.3, 0.3, 0.3, 0.3])
    world.end(job)
    for _ in range(3):
        assert "paused" in world.tick().waiting_for
    assert len(world.cluster.submissions) == 1
    assert world.tree[0].status is NodeStatus.COMPLETED
    control.clear_pause(world.directory)
    world.tick()
    assert len(world.cluster.submissions) == 2


def test_stop_leaves_jobs_alone(world: World) -> None:
    world.tick()
    control.request_stop(world.directory)
    assert world.tick().stop_requested
    assert world.cluster.cancelled == []
    assert len(world.live()) == 1


def test_cancel_takes_a_phase_out_without_a_word_on_the_strategy(world: World) -> None:
    world.tick()
    job = world.live()[0]
    world.train(job, [0.3, 0.3, 0.3, 0.3])
    world.end(job)
    world.tick()
    control.request_cancel(world.directory, 1)
    world.tick()
    world.carry_out_cancellations()
    world.tick()
    assert world.tree[1].status is NodeStatus.CANCELLED
    assert world.finish([0.4]).finished


@pytest.mark.parametrize("parallel", [2, 4])
def test_several_phases_in_flight_stay_within_their_number(tmp_path: Path, parallel: int) -> None:
    world = World(tmp_path / "s", small_config(max_parallel_phases=parallel, budget={"iterations": 12}))
    most = 0
    for round_number in range(200):
        if world.tick().finished:
            break
        most = max(most, len(world.live()))
        assert len(world.live()) <= parallel
        for job in world.live()[: 1 + round_number % parallel]:
            world.train(job, [0.3, 0.4, 0.5, 0.4])
            world.end(job)
    assert most == parallel
    assert len(world.tree) == 12


def test_the_compute_budget_stops_planning_and_ends_what_overdraws(tmp_path: Path) -> None:
    world = World(tmp_path / "s", small_config(budget={"iterations": 50, "device_hours": 1.0}))
    for _ in range(30):
        if world.tick(300).finished:
            break
        world.carry_out_cancellations()
        for job in world.live():
            if "evaluate" in job.request.plan.command:
                world.end(job)
            elif job.state is JobState.PENDING:
                world.train(job, [0.3, 0.4])
    first = world.tree[0]
    assert first.stop is not None
    assert first.stop.author == "budget"
    assert len(world.tree) == 1
    assert 3600 <= world.tree.device_seconds() <= 3600 + 2 * 300


def test_the_deadline_ends_the_search(tmp_path: Path) -> None:
    world = World(tmp_path / "s", small_config(budget={"iterations": 50, "deadline_hours": 0.5}))
    world.tick()
    world.train(world.live()[0], [0.3])
    world.tick(1000)
    world.tick(1000)
    world.carry_out_cancellations()
    world.tick(1)
    assert world.tree[0].status is NodeStatus.EARLY_STOPPED
    assert len(world.tree) == 1


def test_a_controller_that_was_replaced_changes_nothing_more(world: World) -> None:
    world.tick()
    before = world.tree
    Lease.acquire(world.directory, take_over=True)
    job = world.live()[0]
    world.train(job, [0.3])
    with pytest.raises(LeaseError):
        world.tick()
    assert world.tree == before


def test_a_phase_whose_job_ended_without_any_score_is_completed_and_terminal(world: World) -> None:
    world.tick()
    world.train(world.live()[0], [])
    world.end(world.live()[0])
    outcome = world.tick()
    assert world.tree[0].status is NodeStatus.COMPLETED
    assert world.tree[0].score is None
    assert outcome.finished, "nothing can be expanded"


def test_failures_in_a_row_pause_the_search_for_a_person(tmp_path: Path) -> None:
    world = World(tmp_path / "s", small_config(budget={"iterations": 50}, pause_after_failures=3))
    for _ in range(12):
        outcome = world.tick()
        for job in world.live():
            world.train(job, [])
            world.end(job, "error", 1)
    assert len(world.tree) == 3
    assert "paused" in outcome.waiting_for
    assert any(event.kind == "stall" for event in read_events(world.directory))
    control.clear_pause(world.directory)
    world.tick()
    assert len(world.tree) == 4, "a person may go on"


def test_a_relative_folder_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    world = World(Path("state") / "s", small_config(budget={"iterations": 1}))
    world.tick()
    assert world.live()[0].request.directory == tmp_path / "state" / "s" / "phases" / "0000" / "attempts" / "1"
    assert world.finish([0.4]).finished


def test_a_phase_is_judged_once_for_each_validation_however_short_the_interval(tmp_path: Path) -> None:
    asked = []

    class Counting(Playbook):
        def judge(self, request: StopRequest) -> StopAnswer:
            asked.append(request.node.id)
            return StopAnswer(stop=False, reason="", author="test")

    early_stop = {"interval_seconds": 1e-6, "first_step": 2}
    world = World(tmp_path / "s", small_config(early_stop=early_stop), Counting())
    world.tick()
    world.train(world.live()[0], [0.5, 0.5, 0.5, 0.5])
    world.end(world.live()[0])
    world.tick()
    world.train(world.live()[0], [0.2, 0.3])
    world.tick()
    world.tick()
    assert asked == [1], "nothing new can be said"
    world.train(world.live()[0], [0.4])
    world.tick()
    world.tick()
    assert asked == [1, 1]


@pytest.mark.parametrize("interval", [0.0, 5.0])
def test_phases_are_judged_and_end_where_each_tick_is_another_process(tmp_path: Path, interval: float) -> None:
    asked = []

    class Counting(Playbook):
        def judge(self, request: StopRequest) -> StopAnswer:
            asked.append((request.node.id, request.series.rows[-1].step))
            return StopAnswer(stop=False, reason="", author="test")

    early_stop = {"interval_seconds": interval, "first_step": 2}
    world = World(tmp_path / "s", small_config(early_stop=early_stop, budget={"iterations": 2}), Counting())

    def tick() -> bool:
        finished = world.tick().finished
        world.restart()
        return finished

    tick()
    world.train(world.live()[0], [0.5, 0.5, 0.5, 0.5])
    world.end(world.live()[0])
    tick()
    for score in (0.2, 0.3, 0.4, 0.5):
        world.train(world.live()[0], [score])
        for _ in range(4):
            tick()
    world.end(world.live()[0])
    for _ in range(20):
        for job in world.live():
            world.end(job)
        if tick():
            break
    assert world.tree[1].status is NodeStatus.COMPLETED
    assert asked == sorted(set(asked)), "each step once, in order"
    assert len(asked) >= 3


def test_nothing_is_submitted_while_the_disk_is_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1e9
    monkeypatch.setattr("shutil.disk_usage", lambda _path: types.SimpleNamespace(free=free))
    assert "1.0 GB are free" in world.tick().waiting_for
    assert world.cluster.submissions == []
    free = 3e9
    world.tick()
    assert len(world.cluster.submissions) == 1


def test_siblings_in_flight_know_of_each_other(tmp_path: Path) -> None:
    world = World(tmp_path / "search", small_config(max_parallel_phases=3))
    world.tick()
    world.train(world.live()[0], [0.3, 0.3, 0.3, 0.3])
    world.end(world.live()[0])
    for _ in range(4):
        world.tick()
    children = world.tree.children(0)
    assert len([node for node in children if node.status is NodeStatus.PENDING]) >= 2
    configurations = [node.configuration for node in children]
    assert all(one != other for one, other in itertools.combinations(configurations, 2))
