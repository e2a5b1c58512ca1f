"""The budget: what is refused, what ends, and that the allowances of jobs keep to it whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_trees import COMPLETED, RUNNING, node, tree

from llmzero_hpc.search.budget import Account, account, affordable_seconds
from llmzero_hpc.search.node import Attempt, CheckpointReference, Ending, Job, Node, NodeStatus
from llmzero_hpc.search.tree import Evaluation, Tree
from llmzero_hpc.sections import Budget

HOUR = 3600.0


def attempt(spent: float, *, over: bool = True, allowance: float | None = None, earlier: float = 0.0) -> Attempt:
    return Attempt(
        number=1,
        name="lz-1",
        intended_at=0.0,
        job=Job("1", "lz-1", 0.0),
        ending=Ending.COMPLETED if over else None,
        device_seconds=spent,
        allowance=allowance,
        earlier_device_seconds=earlier,
    )


def finished(node_id: int, spent: float) -> Node:
    return replace(node(node_id, None if node_id == 0 else 0, 0.5, status=COMPLETED), attempts=(attempt(spent),))


def running(node_id: int, spent: float, allowance: float | None = None, earlier: float = 0.0) -> Node:
    tried = attempt(spent, over=False, allowance=allowance, earlier=earlier)
    return replace(node(node_id, 0, status=RUNNING), attempts=(tried,))


def at(
    budget: Budget, *nodes: Node, now: float = 0.0, dollars: float = 0.0, shortest: float = 0.0, devices: int = 1
) -> Account:
    return account(tree(*nodes), budget, 0.0, now, api_dollars_used=dollars, shortest_seconds=shortest, devices=devices)


@pytest.mark.parametrize(
    ("budget", "dollars", "now", "refusal", "overdrawn"),
    [
        (Budget(iterations=2), 0.0, 1e9, None, None),
        (Budget(iterations=1), 0.0, 0.0, "all iterations are used", None),
        (Budget(api_dollars=5.0), 4.99, 0.0, None, None),
        (Budget(api_dollars=5.0), 5.0, 0.0, "the money for language models is used up", None),
        (Budget(deadline_hours=1.0), 0.0, HOUR - 1, None, None),
        (Budget(deadline_hours=1.0), 0.0, HOUR, "the deadline has passed", "the deadline has passed"),
        (Budget(device_hours=2.0), 0.0, 0.0, None, None),
        (Budget(device_hours=1.99), 0.0, 0.0, "the compute budget does not cover another phase", None),
        (
            Budget(device_hours=1.0), 0.0, 0.0,
            "the compute budget does not cover another phase", "the compute budget is used up",
        ),
    ],
)  # fmt: skip
def test_each_budget_refuses_at_its_limit_and_only_compute_and_deadline_end_what_runs(
    budget: Budget, dollars: float, now: float, refusal: str | None, overdrawn: str | None
) -> None:
    found = at(budget, finished(0, HOUR), now=now, dollars=dollars)

    assert (found.refusal, found.overdrawn) == (refusal, overdrawn)


def test_what_is_left_must_do_for_the_shortest_job_that_the_cluster_takes() -> None:
    compute, deadline = Budget(device_hours=8 * 60 / HOUR), Budget(deadline_hours=60 / HOUR)

    assert at(compute, shortest=60.0, devices=8).refusal is None
    assert at(compute, shortest=61.0, devices=8).refusal == "the compute budget does not cover another phase"
    assert at(deadline, shortest=60.0).refusal is None
    assert at(deadline, now=1.0, shortest=60.0).refusal == "the time until the deadline is too short for a job"


def test_what_is_left_is_shown_for_every_limit() -> None:
    found = at(
        Budget(iterations=3, device_hours=2.0, deadline_hours=3.0, api_dollars=5.0),
        finished(0, HOUR), now=HOUR, dollars=1.5,
    )  # fmt: skip

    assert (found.iterations_left, found.device_seconds_left, found.seconds_left) == (2, HOUR, 2 * HOUR)
    assert (found.dollars_used, found.dollars_left) == (1.5, 3.5)
    unlimited = at(Budget(), finished(0, HOUR), dollars=1.5)
    assert (unlimited.device_seconds_left, unlimited.seconds_left, unlimited.dollars_left) == (None, None, None)
    assert unlimited.dollars_used == 1.5


def test_running_phases_reserve_what_they_may_still_spend() -> None:
    budget = Budget(device_hours=10.0)
    waiting = replace(node(2, 0, status=NodeStatus.PROPOSED))

    expected = at(budget, finished(0, 1000.0), running(1, 300.0), waiting)
    assert (expected.promised_seconds, expected.reserved_seconds) == (700.0, 1700.0)
    capped = at(budget, finished(0, 1000.0), running(1, 300.0, allowance=4000.0))
    assert (capped.promised_seconds, capped.reserved_seconds) == (3700.0, 3700.0)
    requeued = at(budget, finished(0, 1000.0), running(1, 2300.0, allowance=4000.0, earlier=2000.0))
    assert requeued.promised_seconds == 3700.0, "each run of a job may take its whole time limit"


def test_the_test_score_counts_as_used() -> None:
    scored = replace(
        tree(finished(0, 100.0)), evaluation=Evaluation(CheckpointReference(0, 10), "test", (attempt(50.0),))
    )

    assert account(scored, Budget(device_hours=1.0), 0.0, 0.0).device_seconds_used == 150.0


def test_the_first_phase_may_take_all_there_is() -> None:
    assert affordable_seconds(at(Budget(device_hours=2.0), devices=8), 4) == 2 * HOUR / 8
    assert affordable_seconds(at(Budget()), 4) is None
    assert affordable_seconds(at(Budget(deadline_hours=0.5), now=600.0), 4) == 1200.0


@pytest.mark.parametrize(
    ("hours", "places", "share"),
    [(10.0, 4, 4), (10.0, 2, 2), (4.0, 4, 3), (2.5, 4, 1), (1.5, 4, 1)],
)
def test_parallel_phases_share_what_covers_them(hours: float, places: int, share: int) -> None:
    found = at(Budget(device_hours=hours), finished(0, HOUR), devices=2)

    assert affordable_seconds(found, places) == pytest.approx((hours - 1.0) * HOUR / share / 2)


def test_shares_are_never_shorter_than_the_shortest_job() -> None:
    found = at(Budget(device_hours=190 / HOUR), finished(0, 20.0), shortest=60.0)

    assert found.expected_seconds == 60.0
    assert affordable_seconds(found, 3) == pytest.approx(170 / 2)
    planned = at(
        Budget(device_hours=190 / HOUR), finished(0, 20.0), *(node(n, 0, status=NodeStatus.PLANNED) for n in (1, 2)),
        shortest=60.0,
    )  # fmt: skip
    assert planned.reserved_seconds == 120.0
    assert planned.refusal is not None


def test_a_job_waits_while_all_is_promised_to_others() -> None:
    found = at(Budget(device_hours=1.0), running(0, 0.0, allowance=HOUR))

    assert affordable_seconds(found, 1) == 0.0
    assert found.refusal is not None
    assert found.overdrawn is None


@dataclass
class Run:
    """A job of the simulation. `lasts` is what it needs, or its time limit if that is less."""

    began: float
    lasts: float

    def is_over(self, now: float) -> bool:
        return self.began + self.lasts <= now

    def seconds(self, now: float) -> float:
        return min(now - self.began, self.lasts)


DURATIONS = st.lists(st.floats(1.0, 3000.0), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(
    durations=DURATIONS,
    hours=st.floats(0.05, 20.0),
    places=st.integers(1, 4),
    devices=st.sampled_from([1, 8]),
    interval=st.floats(1.0, 300.0),
    dies_at=st.none() | st.floats(0.0, 20_000.0),
)
def test_no_more_is_spent_than_the_budget_whether_or_not_a_controller_lives(
    durations: list[float], hours: float, places: int, devices: int, interval: float, dies_at: float | None
) -> None:
    """Phases last as they like; the cluster ends each at the time limit that it was submitted with."""
    budget = Budget(iterations=40, device_hours=hours)
    now = 0.0
    nodes: list[Node] = []
    runs: list[Run] = []

    def look() -> Account:
        return account(Tree(tuple(nodes)), budget, 0.0, now, devices=devices)

    def free_places() -> int:
        return places - sum(one.is_active for one in nodes)

    for _ in range(400):
        for number, run in enumerate(runs):
            over = run.is_over(now)
            job = replace(
                nodes[number].attempts[0],
                device_seconds=run.seconds(now) * devices,
                ending=Ending.COMPLETED if over else None,
            )
            nodes[number] = replace(nodes[number], attempts=(job,), status=COMPLETED if over else RUNNING)
        while (dies_at is None or now < dies_at) and not look().refusal and free_places():
            limit = affordable_seconds(look(), free_places())
            assert limit is not None
            assert limit > 0, "what is not refused can be submitted"
            runs.append(Run(now, min(limit, durations[len(nodes) % len(durations)])))
            nodes.append(running(len(nodes), 0.0, allowance=limit * devices))
        if free_places() == places:
            break
        now += interval
    assert sum(run.seconds(now) for run in runs) * devices <= hours * HOUR * (1 + 1e-9)


@settings(deadline=None, max_examples=100)
@given(
    spends=st.lists(st.floats(0.0, 5000.0), min_size=1, max_size=5),
    live=st.lists(st.tuples(st.floats(0.0, 5000.0), st.floats(0.0, 5000.0)), max_size=3),
    hours=st.floats(0.01, 10.0),
    places=st.integers(1, 4),
)
def test_a_phase_that_is_not_refused_gets_at_least_what_one_is_expected_to_cost(
    spends: list[float], live: list[tuple[float, float]], hours: float, places: int
) -> None:
    nodes = [finished(number, spent) for number, spent in enumerate(spends)]
    nodes += [running(len(spends) + n, spent, allowance=spent + rest) for n, (spent, rest) in enumerate(live)]
    found = at(Budget(iterations=100, device_hours=hours), *nodes)
    seconds = affordable_seconds(found, places)

    assert seconds is not None
    if found.refusal is None:
        assert seconds >= found.expected_seconds * (1 - 1e-9)
