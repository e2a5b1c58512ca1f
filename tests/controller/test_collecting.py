"""Housekeeping on disk: what goes is what nothing needs, in whatever order things happen and wherever it is killed."""

from __future__ import annotations

import itertools
import os
import shutil
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from controller_world import World, small_config
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from test_any_order import AnyOrder

from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.controller.housekeeping import Kind, collect, removable, remove, space_problem, usage
from llmzero_hpc.errors import StorageError
from llmzero_hpc.report.data import without_clock
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.housekeeping import needed_checkpoints
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.store.atomic import TEMPORARY_PREFIX
from llmzero_hpc.store.events import read_events
from llmzero_hpc.trainers.checkpoints import complete_checkpoints
from llmzero_hpc.trainers.specification import read_evaluation, read_phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from controller_world import MemoryJob

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.report.data import ReportData


def adapter_of(job: MemoryJob) -> Path | None:
    """Where a job begins, or what it scores."""
    specification = job.request.directory.parents[1] / "config.yaml"
    if "evaluate" in job.request.plan.command:
        return read_evaluation(specification).adapter
    return read_phase(specification).parent_adapter


def on_disk(world: World, node: int) -> tuple[int, ...]:
    return complete_checkpoints(world.directory.phase(node).checkpoints)


def play(world: World, seed: int) -> ReportData:
    """A whole search in which phases complete, fail and are preempted; what happens depends on the seed alone."""
    random = Random(seed)
    for _ in range(300):
        if world.tick(10).finished:
            return without_clock(read(world.directory, metrics="all", now=0.0))
        for job in world.live():
            begins = adapter_of(job)
            assert begins is None or (begins / "adapter_model.safetensors").exists()
            happens = random.choice(["waits", "trains", "ends", "ends", "fails", "is lost"])
            if happens != "waits" and "evaluate" not in job.request.plan.command:
                world.train(job, [random.random() for _ in range(random.randint(1, 4))])
                (job.request.directory.parents[1] / "training_state").mkdir(exist_ok=True)
            if happens == "ends":
                world.train(job, [random.random() for _ in range(4)])
                world.end(job)
            elif happens == "fails":
                world.end(job, "error", 1)
            elif happens == "is lost":
                job.state = JobState.NODE_FAILURE
    raise AssertionError("the search did not end")


def config(**changes: object) -> SearchConfig:
    return small_config(max_parallel_phases=2, budget={"iterations": 14}, **changes)


@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_is_tidied_makes_the_same_decisions_and_ends_the_same(seed: int, tmp_path: Path) -> None:
    untidy = World(tmp_path / "untidy", config())
    tidy = World(tmp_path / "tidy", config(housekeeping={"collect": True}))

    assert play(untidy, seed) == play(tidy, seed)
    removed = [event for event in read_events(tidy.directory) if event.kind == "housekeeping"]
    assert removed
    assert all(event.message.startswith("removed what nothing needs") for event in removed)
    tree = tidy.tree
    best = tree.best()
    assert best is not None
    needed = needed_checkpoints(tree, tidy.config.growth)
    for node in tree:
        assert set(on_disk(tidy, node.id)) == {one.step for one in needed if one.node == node.id}
        assert not tidy.directory.phase(node.id).training_state.exists()
    kept = sum(len(on_disk(tidy, node.id)) for node in tree)
    assert 0 < kept < sum(len(on_disk(untidy, node.id)) for node in tree)


class TidiedAnyOrder(AnyOrder):
    """Anything in any order, and housekeeping at any moment, also with a tree from before."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = [self.world.tree]

    @rule()
    def somebody_looks(self) -> None:
        self.seen.append(self.world.tree)

    @rule(which=st.integers(0, 20))
    def somebody_tidies_by_a_tree_of_any_age(self, which: int) -> None:
        remove(removable(self.world.directory, self.seen[which % len(self.seen)]))
        remove(removable(self.world.directory, self.world.tree))

    @invariant()
    def every_job_finds_where_it_begins(self) -> None:
        for job in self.world.live():
            begins = adapter_of(job)
            assert begins is None or (begins / "adapter_model.safetensors").exists()

    @invariant()
    def what_is_needed_is_there(self) -> None:
        for one in needed_checkpoints(self.world.tree, self.world.config.growth):
            assert one.step in on_disk(self.world, one.node)


TidiedAnyOrder.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestTidiedAnyOrder = TidiedAnyOrder.TestCase


@pytest.fixture
def ended(tmp_path: Path) -> World:
    """Three phases in a row, each with four checkpoints; a phase may have one child."""
    world = World(tmp_path / "s", small_config(budget={"iterations": 3}, rules={"max_evolve_children": 1}))
    world.finish([0.5, 0.6, 0.7])
    for node in world.tree:
        folder = world.directory.phase(node.id)
        folder.training_state.mkdir()
        (folder.training_state / "optimizer.pt").write_bytes(b"x" * 50_000)
        call = folder.attempt(1).submission / node.attempts[0].name / "request-1"
        call.mkdir(parents=True)
        (call / "7_submitted.pkl").write_bytes(b"x" * 5_000)
    return world


def test_what_can_go_is_named_by_kind_with_its_size_and_gone_afterwards(ended: World) -> None:
    items = removable(ended.directory, ended.tree)
    kinds = {kind: [item for item in items if item.kind is kind] for kind in Kind}

    assert len(kinds[Kind.TRAINING_STATE]) == len(kinds[Kind.SUBMISSIONS]) == 3
    assert kinds[Kind.CHECKPOINTS]
    assert all(item.size >= 50_000 for item in kinds[Kind.TRAINING_STATE])
    before = usage(ended.directory.root)
    assert before[Kind.TRAINING_STATE] == sum(item.size for item in kinds[Kind.TRAINING_STATE])
    assert remove(items) == sum(item.size for item in items)
    after = usage(ended.directory.root)
    assert after[Kind.TRAINING_STATE] == 0
    assert sum(before.values()) - sum(after.values()) == sum(item.size for item in items)
    assert removable(ended.directory, ended.tree) == ()


def test_a_search_that_is_over_keeps_its_best_strategy_alone(ended: World) -> None:
    remove(removable(ended.directory, ended.tree, is_over=True))
    best = ended.tree.best()
    assert best is not None
    assert best.best is not None
    assert on_disk(ended, best.id) == (best.best.step,)
    left = {node.id: on_disk(ended, node.id) for node in ended.tree if on_disk(ended, node.id)}
    assert sum(map(len, left.values())) == (1 if best.resume is None else 2)


def test_a_phase_in_flight_keeps_everything(tmp_path: Path) -> None:
    world = World(tmp_path / "s", small_config())
    world.tick()
    world.train(world.live()[0], [0.1, 0.2])
    folder = world.directory.phase(0)
    folder.training_state.mkdir()
    (folder.attempt(1).submission / "7_submitted.pkl").write_bytes(b"x")
    (folder.checkpoints / f"{TEMPORARY_PREFIX}step_6").mkdir()
    world.tick()

    assert world.tree[0].status is NodeStatus.RUNNING
    assert removable(world.directory, world.tree, now=world.clock.now) == ()


def test_temporary_files_go_when_they_are_old_or_of_a_phase_that_is_over(ended: World) -> None:
    root = ended.directory.root
    old, new = root / f"{TEMPORARY_PREFIX}tree.json-1", root / f"{TEMPORARY_PREFIX}tree.json-2"
    half = ended.directory.phase(0).checkpoints / f"{TEMPORARY_PREFIX}step_8"
    half.mkdir()
    for path in (old, new, half / "adapter_config.json"):
        path.write_text("{}")
    now = new.stat().st_mtime
    os.utime(old, (now - 90_000, now - 90_000))
    found = {item.path for item in removable(ended.directory, ended.tree, now=now) if item.kind is Kind.TEMPORARY}

    assert found == {old, half}


class Killed(BaseException):
    """The process is gone; nothing may catch it."""


@contextmanager
def dying(at: int) -> Iterator[None]:
    """Dies before or after the call number `at / 2` that changes a folder."""
    count = itertools.count()

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keywords: Any) -> Any:
            if next(count) == at:
                raise Killed
            result = call(*args, **keywords)
            if next(count) == at:
                raise Killed
            return result

        return wrapped

    with pytest.MonkeyPatch.context() as patched:
        for name in ("replace", "unlink", "rmdir", "fsync"):
            patched.setattr(os, name, around(getattr(os, name)))
        yield


def test_a_kill_at_any_step_leaves_no_half_checkpoint_and_the_rest_goes_next_time(ended: World, tmp_path: Path) -> None:
    tree, root = ended.tree, ended.directory.root
    safe = tmp_path / "safe"
    shutil.copytree(root, safe)
    for at in itertools.count():
        shutil.rmtree(root)
        shutil.copytree(safe, root)
        killed = False
        with dying(at):
            try:
                collect(ended.directory, tree)
            except Killed:
                killed = True
        for step in root.glob("phases/*/checkpoints/step_*"):
            assert len(list(step.iterdir())) == 2, f"{step} is half there after a kill at {at}"
        remove(removable(ended.directory, tree))
        assert not list(root.rglob(f"{TEMPORARY_PREFIX}removed-*")), f"something is left after a kill at {at}"
        assert removable(ended.directory, tree) == ()
        for one in needed_checkpoints(tree, ended.config.growth):
            assert one.step in on_disk(ended, one.node)
        if not killed:
            break
    assert at > 50


def test_a_file_system_that_refuses_is_told_and_stops_nothing(ended: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError):
        remove(removable(ended.directory, ended.tree))
    assert "Permission denied" in collect(ended.directory, ended.tree)


def test_little_free_space_is_a_reason_to_wait(tmp_path: Path) -> None:
    assert space_problem(tmp_path, 0) is None
    problem = space_problem(tmp_path, 1e9)
    assert problem is not None
    assert "free" in problem
    assert "housekeeping.free_gb" in problem
