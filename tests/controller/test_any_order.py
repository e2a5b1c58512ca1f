"""Whatever happens in whatever order, with kills in between: no job doubled, none orphaned, none lost."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from controller_world import World, small_config
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store import control

EXIT_CODES = {"completed": 0, "error": 1, "infrastructure_error": ClusterError.exit_code, "terminated": -15}


class AnyOrder(RuleBasedStateMachine):
    """The world's moves: time, training, every ending, outages, lost answers, requests of people, kills."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="anyorder"))
        early_stop = {"interval_seconds": 0, "first_step": 2}
        config = small_config(max_parallel_phases=2, budget={"iterations": 8}, early_stop=early_stop, max_attempts=4)
        self.world = World(self.folder / "s", config)
        self.longest = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 1000.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule()
    def kill_the_controller(self) -> None:
        self.world.restart()

    @rule(which=st.integers(0, 3), scores=st.lists(st.floats(0, 1), max_size=3))
    def train(self, which: int, scores: list[float]) -> None:
        live = self.world.live()
        if live:
            self.world.train(live[which % len(live)], scores)

    @rule(which=st.integers(0, 3), how=st.sampled_from(list(EXIT_CODES)))
    def job_ends_by_itself(self, which: int, how: str) -> None:
        live = self.world.live()
        if live:
            job = live[which % len(live)]
            if how == "completed":
                self.world.train(job, [0.4, 0.5, 0.6, 0.5])
            self.world.end(job, how, EXIT_CODES[how])

    @rule(
        which=st.integers(0, 3),
        state=st.sampled_from([None, JobState.PREEMPTED, JobState.NODE_FAILURE, JobState.TIME_LIMIT, JobState.FAILED]),
    )
    def infrastructure_takes_a_job(self, which: int, state: JobState | None) -> None:
        live = self.world.live()
        if live:
            live[which % len(live)].state = state

    @rule()
    def cancellations_arrive(self) -> None:
        self.world.carry_out_cancellations()

    @rule(there=st.booleans())
    def cluster_comes_and_goes(self, there: bool) -> None:
        self.world.cluster.out_of_reach = not there

    @rule(lost=st.booleans())
    def answers_get_lost(self, lost: bool) -> None:
        self.world.cluster.loses_answers = lost

    @rule(node=st.integers(0, 8))
    def somebody_cancels(self, node: int) -> None:
        control.request_cancel(self.world.directory, node)

    @rule(paused=st.booleans())
    def somebody_pauses(self, paused: bool) -> None:
        (control.request_pause if paused else control.clear_pause)(self.world.directory)

    @invariant()
    def no_attempt_is_submitted_twice(self) -> None:
        assert len(set(self.world.cluster.submissions)) == len(self.world.cluster.submissions)

    @invariant()
    def every_job_belongs_to_an_attempt(self) -> None:
        tree = self.world.tree
        names = {attempt.name for node in tree for attempt in node.attempts}
        if tree.evaluation:
            names |= {attempt.name for attempt in tree.evaluation.attempts}
        assert set(self.world.cluster.jobs) <= names

    @invariant()
    def no_final_node_has_a_live_job(self) -> None:
        live = {job.job.name for job in self.world.live()}
        for node in self.world.tree:
            if node.status.is_final:
                assert not live & {attempt.name for attempt in node.attempts}

    @invariant()
    def at_most_one_live_job_a_node_and_two_in_all(self) -> None:
        live = {job.job.name for job in self.world.live()}
        for node in self.world.tree:
            assert len(live & {attempt.name for attempt in node.attempts}) <= 1
        assert len(live) <= 2

    @invariant()
    def nodes_are_never_lost(self) -> None:
        tree = self.world.tree
        assert len(tree) >= self.longest
        self.longest = len(tree)
        assert [node.id for node in tree] == list(range(len(tree)))
        assert tree.iterations() <= 8

    @invariant()
    def what_is_running_has_a_configuration_and_an_attempt(self) -> None:
        for node in self.world.tree:
            if node.status in {NodeStatus.SUBMITTING, NodeStatus.PENDING, NodeStatus.RUNNING, NodeStatus.COMPLETED}:
                assert node.configuration is not None
                assert node.attempts

    @precondition(lambda self: self.world.tree)
    @rule()
    def it_can_always_be_finished(self) -> None:
        """From any state, a quiet world brings the search to its end."""
        if self.longest < 6:
            return
        self.world.cluster.out_of_reach = self.world.cluster.loses_answers = False
        control.clear_pause(self.world.directory)
        for _ in range(120):
            if self.world.tick(10).finished:
                return
            self.world.carry_out_cancellations()
            for job in self.world.live():
                self.world.train(job, [0.4, 0.5, 0.6, 0.5])
                self.world.end(job)
        raise AssertionError(f"does not end: {self.world.tree}")


AnyOrder.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestAnyOrder = AnyOrder.TestCase
