"""All four budgets stop a search at the right place, with jobs in flight, and none is overspent."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from controller_world import World, small_config
from hypothesis import given, settings
from hypothesis import strategies as st

from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store.agent_calls import Spending

if TYPE_CHECKING:
    from controller_world import MemoryJob

    from llmzero_hpc.controller.tick import Outcome

HOUR = 3600.0


class PaidPlaybook(Playbook):
    """Rules that send a bill: the money that language models would cost."""

    def __init__(self) -> None:
        super().__init__()
        self.dollars = 0.0

    def spending(self) -> Spending:
        """What was set."""
        return Spending(calls=1, dollars=self.dollars)


class BudgetWorld(World):
    """Jobs that train for as long as they need and obey their time limits, whether or not a controller ticks."""

    needs: list[float]
    cost = 0.0

    def pass_time(self, seconds: float) -> None:
        """Let jobs run on their own. A phase trains a pair of steps in each quarter of the time that it needs."""
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            for job in self.live():
                if job.state is JobState.PENDING:
                    job.state, job.started_at = JobState.RUNNING, self.clock.now
                    continue
                self.cost += job.request.devices
                ran = self.clock.now - (job.started_at or 0.0)
                need = self.needs[self.cluster.submissions.index(job.job.name) % len(self.needs)]
                while job.steps < min(4, int(4 * ran / need)):
                    job.steps += 1
                    self.train(job, [0.4 + 0.01 * job.steps])
                if ran >= need:
                    self.end(job)
                elif job.request.time_limit_seconds is not None and ran >= job.request.time_limit_seconds:
                    self.end(job, "time_limit", -15)
                    job.state = JobState.TIME_LIMIT

    def search(self, interval: int = 10, limit: int = 3000) -> Outcome:
        """Tick until it is over."""
        for _ in range(limit):
            outcome = self.tick(0.0)
            self.carry_out_cancellations()
            if outcome.finished:
                return outcome
            self.pass_time(interval)
        raise AssertionError(f"the search does not end: {self.tree}")


def world(folder: Path, needs: list[float], agents: Playbook | None = None, **changes: object) -> BudgetWorld:
    made = BudgetWorld(folder / "s", small_config(**changes), agents)
    made.needs = needs
    return made


def train_jobs(made: BudgetWorld) -> list[MemoryJob]:
    return [job for job in made.cluster.jobs.values() if "train" in job.request.plan.command]


def test_iterations_end_the_search_when_the_last_phases_in_flight_have_ended(tmp_path: Path) -> None:
    made = world(tmp_path, [100.0, 300.0], max_parallel_phases=3, budget={"iterations": 7})
    assert made.search().finished

    assert len(made.tree) == made.tree.iterations() == 7
    assert {node.status for node in made.tree} == {NodeStatus.COMPLETED}
    assert made.tree.evaluation is not None
    assert made.tree.evaluation.score == 0.5


def test_money_stops_planning_and_lets_running_phases_end(tmp_path: Path) -> None:
    agents = PaidPlaybook()
    made = world(tmp_path, [100.0], agents, max_parallel_phases=2, budget={"iterations": 50, "api_dollars": 5.0})
    for _ in range(40):
        made.tick(0.0)
        made.pass_time(10)
    flying = len(made.tree.active())
    count, agents.dollars = len(made.tree), 5.0
    assert flying
    assert made.search().finished

    assert len(made.tree) == count
    assert {node.status for node in made.tree} == {NodeStatus.COMPLETED}
    assert made.controller.account().refusal == "the money for language models is used up"


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_deadline_ends_what_runs_and_the_score_is_still_measured(tmp_path: Path, parallel: int) -> None:
    made = world(tmp_path, [400.0], max_parallel_phases=parallel, budget={"iterations": 50, "deadline_hours": 0.5})
    started = made.clock.now
    assert made.search().finished

    assert made.clock.now - started <= HOUR / 2 + 400 + 60, "the test score comes after the deadline"
    stopped = [node for node in made.tree if node.status is NodeStatus.EARLY_STOPPED]
    assert stopped
    assert all(node.stop is None or node.stop.author == "budget" for node in stopped)
    assert all(job.started_at is None or job.started_at <= started + HOUR / 2 for job in train_jobs(made))
    assert made.tree.evaluation is not None
    assert made.tree.evaluation.score is not None


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_compute_is_used_up_and_never_overspent_while_phases_run_beside_each_other(
    tmp_path: Path, parallel: int
) -> None:
    made = world(
        tmp_path, [100.0, 150.0, 80.0, 170.0], max_parallel_phases=parallel,
        budget={"iterations": 50, "device_hours": 0.5},
    )  # fmt: skip
    assert made.search().finished

    assert made.cost <= 1800.0
    assert made.cost >= 1800.0 - 2 * 170.0, "what does not cover a phase any more is all that is left"
    assert made.tree.device_seconds() == pytest.approx(made.cost, abs=2.0 * len(made.cluster.jobs))


@settings(deadline=None, max_examples=15)
@given(
    needs=st.lists(st.integers(20, 200).map(float), min_size=1, max_size=5),
    hours=st.floats(0.01, 0.2),
    parallel=st.integers(1, 4),
    interval=st.sampled_from([11, 30, 120]),
    grain=st.sampled_from([1.0, 60.0]),
    dies_after=st.none() | st.integers(0, 20),
)
def test_no_device_second_above_the_budget_is_spent_whether_or_not_a_controller_lives(
    needs: list[float], hours: float, parallel: int, interval: int, grain: float, dies_after: int | None
) -> None:
    """Only the clock's own resolution is forgiven: a second for each job."""
    folder = Path(tempfile.mkdtemp(prefix="budgets"))
    try:
        made = world(folder, needs, max_parallel_phases=parallel, budget={"iterations": 8, "device_hours": hours})
        made.cluster.time_limit_grain_seconds = grain
        if dies_after is None:
            made.search(interval)
        else:
            for _ in range(dies_after):
                if made.tick(0.0).finished:
                    break
                made.carry_out_cancellations()
                made.pass_time(interval)
            made.pass_time(900)
            assert not made.live()
        assert made.cost <= hours * HOUR + len(made.cluster.jobs)
    finally:
        shutil.rmtree(folder)


def test_a_job_whose_time_is_cut_short_by_the_budget_keeps_what_it_reached(tmp_path: Path) -> None:
    made = world(tmp_path, [1000.0], budget={"iterations": 50, "device_hours": 0.2})
    assert made.search(interval=7).finished

    (node,) = made.tree
    assert node.score is not None
    assert node.attempts[0].allowance == 720.0
    assert train_jobs(made)[0].request.time_limit_seconds == 720.0
    assert made.cost <= 721.0


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_remainder_too_short_for_any_job_ends_the_search(tmp_path: Path, parallel: int) -> None:
    """Where time limits are whole minutes, seconds that are left are of no use, however short phases are."""
    made = world(tmp_path, [20.0], max_parallel_phases=parallel, budget={"iterations": 50, "device_hours": 150 / HOUR})
    made.cluster.time_limit_grain_seconds = 60.0
    outcome = made.search(interval=5, limit=200)

    assert outcome.finished
    assert len(made.tree) == len(train_jobs(made)) < 8, "nothing is planned that cannot be submitted"
    assert made.cost <= 150.0
