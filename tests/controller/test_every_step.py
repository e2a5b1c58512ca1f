"""A whole search interrupted once at every call that changes what is on disk, before and after it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from controller_world import World, small_config

from llmzero_hpc.agents.base import StopAnswer
from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.report.data import without_clock
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.agents.base import StopRequest
    from llmzero_hpc.report.data import ReportData

_SCORES = [0.3, 0.5, 0.4, 0.6]
_DURABLE = ("replace", "link", "unlink", "fsync")


class Killed(BaseException):
    """The controller is gone; nothing may catch it."""


class Impatient(Playbook):
    """Stops a phase at its second step if it is far behind, and at no other: what is lost is not made up for."""

    def judge(self, request: StopRequest) -> StopAnswer:
        steps = len(request.series.rows)
        weak = steps == 2 and request.best_score - request.series.rows[-1].values["val_score"] > 0.1
        return StopAnswer(weak, "it is behind", "test")


def outcome(world: World) -> ReportData:
    return without_clock(read(world.directory, metrics="all", now=0.0))


def play(world: World) -> None:
    """Bring a search to its end; the scores depend on the node alone."""
    for _ in range(100):
        if world.tick().finished:
            return
        world.carry_out_cancellations()
        for job in world.live():
            node = int(job.request.directory.parents[1].name[:4]) if "train" in job.request.plan.command else 0
            best = _SCORES[node % len(_SCORES)]
            world.train(job, [best - 0.02, best, best - 0.01, best - 0.01])
            world.end(job)
    raise AssertionError("the search did not end")


def counting(monkeypatch: pytest.MonkeyPatch, world: World, die_at: int | None) -> list[int]:
    """Count the controller's durable calls, and raise at one of them."""
    count = [0]
    inside = [False]

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keywords: Any) -> Any:
            if not inside[0]:
                return call(*args, **keywords)
            _step(count, die_at)
            result = call(*args, **keywords)
            _step(count, die_at)
            return result

        return wrapped

    for name in _DURABLE:
        monkeypatch.setattr(os, name, around(getattr(os, name)))
    tick = world.tick

    def watched(seconds: float = 1.0) -> Any:
        inside[0] = True
        try:
            return tick(seconds)
        finally:
            inside[0] = False

    world.tick = watched  # type: ignore[method-assign]
    return count


def _step(count: list[int], die_at: int | None) -> None:
    count[0] += 1
    if count[0] == die_at:
        raise Killed


@pytest.mark.slow
def test_an_interruption_at_any_durable_call_changes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(early_stop={"interval_seconds": 0, "first_step": 2}, budget={"iterations": 4})
    with monkeypatch.context() as patched:
        whole = World(tmp_path / "whole", config, Impatient())
        count = counting(patched, whole, None)
        play(whole)
    expected, total = outcome(whole), count[0]
    assert total > 100
    statuses = [node.status for node in expected.nodes]
    assert NodeStatus.EARLY_STOPPED in statuses
    assert NodeStatus.COMPLETED in statuses
    for die_at in range(1, total + 1):
        world = World(tmp_path / f"step-{die_at}", config, Impatient())
        with monkeypatch.context() as patched:
            counting(patched, world, die_at)
            with pytest.raises(Killed):
                play(world)
        del world.tick  # type: ignore[method-assign]
        world.restart()
        play(world)
        assert outcome(world) == expected, f"interrupted at durable call {die_at}"
        names = world.cluster.submissions
        assert len(set(names)) == len(names) == 5, f"jobs after an interruption at {die_at}: {names}"
