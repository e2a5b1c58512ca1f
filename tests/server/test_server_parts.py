"""What is known of a server without one: its name, what it is charged for, where it listens, what a budget leaves."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from served import search, server_of, stand_in

from llmzero_hpc.cluster.server_watch import ServerWatch
from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller.desk import Desk, Question, QuestionKind
from llmzero_hpc.controller.server_shape import check_server, shape_of
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.search.budget import account, affordable_seconds
from llmzero_hpc.search.tree import Tree
from llmzero_hpc.sections import Budget, LanguageModelAgents, Serve
from llmzero_hpc.store.server_directory import Announcement, ServerEnding, ServerIntent, announce

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.server_directory import ServerDirectory


def config_with(serve: dict[str, Any], **changes: Any) -> SearchConfig:
    values = {
        "name": "a",
        "model": "none",
        "trainer": "rehearsal",
        "task": {"name": "chains"},
        "agents": {"serve": serve},
    }
    return SearchConfig.model_validate(values | changes)


def serve_of(config: SearchConfig) -> Serve:
    assert isinstance(config.agents, LanguageModelAgents)
    assert config.agents.serve is not None
    return config.agents.serve


def test_equal_wishes_lead_to_one_server(tmp_path: Path) -> None:
    serve, state = stand_in(tmp_path), tmp_path / "state"
    first = server_of(search(state / "a", serve))
    assert first.path.parent == state / "servers"
    assert first.name.startswith("tiny_model-")
    assert server_of(search(state / "b", {**serve})).path == first.path
    others = [
        search(state / "c", {**serve, "vllm_options": ["--quantization=awq"]}),
        search(state / "d", {**serve, "share": False}),
        search(state / "e", {**serve, "share": False}),
        search(state / "f", serve, agents={"model": "another-name"}),
    ]
    assert len({server_of(each).path for each in others} | {first.path}) == 5


def test_its_key_stays_and_is_its_own(tmp_path: Path) -> None:
    serve, state = stand_in(tmp_path), tmp_path / "state"
    one, two = server_of(search(state / "a", serve)), server_of(search(state / "b", {**serve, "share": False}))
    one.create()
    two.create()
    assert one.key() == one.key() != two.key()


@pytest.mark.parametrize(
    ("profile", "hardware", "charged"),
    [
        ({"gpus_per_node": 4, "cpus_per_node": 16}, {"gpus": 8}, 4),
        ({"gpus_per_node": 4, "cpus_per_node": 16}, {}, 4),
        ({"cpus_per_node": 16}, {"gpus": 8}, 0),
        ({"cpus_per_node": 16}, {}, 16),
    ],
)
def test_what_it_is_charged_for(
    tmp_path: Path, profile: dict[str, Any], hardware: dict[str, Any], charged: int
) -> None:
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(yaml.safe_dump({"default": {}, "big": profile}))
    cluster = {"kind": "slurm", "profiles": str(profiles)}
    config = config_with({**stand_in(tmp_path), "profile": "big"}, cluster=cluster, hardware=hardware)
    assert shape_of(config, serve_of(config)).charged == charged


def test_what_cannot_be_served_is_told_before_anything_starts(tmp_path: Path) -> None:
    serve = stand_in(tmp_path)
    check_server(config_with(serve))
    with pytest.raises(ConfigurationError, match=r"config\.json cannot be read: No such file") as told:
        check_server(config_with({**serve, "model": tmp_path / "nothing"}))
    assert "Hugging Face" in told.value.next_step
    with pytest.raises(ConfigurationError, match="is for searches on Slurm"):
        check_server(config_with({**serve, "profile": "big"}))
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(yaml.safe_dump({"wide": {"nodes": 2}}))
    cluster = {"kind": "slurm", "profiles": str(profiles), "profile": "wide"}
    with pytest.raises(ConfigurationError, match="asks for 2 machines"):
        check_server(config_with(serve, cluster=cluster))


@pytest.fixture
def begun(tmp_path: Path) -> ServerDirectory:
    """A server with one attempt, that `a` started on four devices."""
    server = server_of(search(tmp_path / "state" / "a", stand_in(tmp_path)))
    server.create()
    server.intend(1, ServerIntent("lz-1", "a", time.time(), 4))
    return server


def test_cost_is_that_of_all_runs(begun: ServerDirectory) -> None:
    attempt, now = begun.attempt(1), time.time()
    for restart, (start, end) in enumerate([(now - 1000, now - 900), (now - 500, now - 450)]):
        os.utime(announce(attempt, Announcement(restart, "node1", 23456, start)), (end, end))
    assert begun.charged("a") == pytest.approx(4 * 150, abs=1)
    assert begun.charged("b") == 0
    begun.end(1, ServerEnding("preempted", now, 700.0))
    begun.end(1, ServerEnding("error", now, 1.0))
    assert begun.charged("a") == 700.0, "it ends once"
    begun.intend(2, ServerIntent("lz-2", "b", now, 4))
    begun.intend(2, ServerIntent("lz-3", "a", now, 4))
    intent = begun.intent(2)
    assert intent is not None
    assert (intent.name, begun.newest()) == ("lz-2", 2), "it is intended once"


def test_a_word_from_long_ago_is_not_believed(begun: ServerDirectory) -> None:
    """Whoever listens at that port by now is not to be shown the key."""
    said = Announcement(0, "127.0.0.1", 23456, time.time() - 5000, up_at=time.time() - 4000)
    file = announce(begun.attempt(1), said)
    assert ServerWatch(begun).announced() == said
    os.utime(file, (time.time() - 3600,) * 2)
    watch = ServerWatch(begun)
    assert watch.announced() is None
    os.utime(file, (time.time() - 3590,) * 2)  # confirmed, by a machine whose clock is wrong
    assert watch.announced() == said
    begun.end(1, ServerEnding("error", time.time(), 1.0))
    assert watch.announced() is None


def test_questions_that_wait_are_asked_again_at_once_when_it_is_up() -> None:
    from llmzero_hpc.agents.base import AgentUnavailableError

    asked = []

    def ask() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise AgentUnavailableError("it is down")
        return "an answer"

    desk, question = Desk(prompt_seconds=300.0), Question(QuestionKind.PROPOSE, 1)
    desk.ask(question, ask)
    assert desk.take() == {}
    desk.ask(question, ask)
    assert (len(asked), bool(desk.waits_for)) == (1, True)
    desk.ask_again()
    desk.ask(question, ask)
    assert desk.take()[question].value == "an answer"


@given(
    hours=st.floats(0.5, 100),
    used=st.floats(0, 50),
    devices=st.integers(1, 64),
    server=st.integers(0, 8),
    places=st.integers(1, 8),
)
def test_phases_and_server_together_stay_within_the_budget(
    hours: float, used: float, devices: int, server: int, places: int
) -> None:
    found = account(
        Tree(),
        Budget(device_hours=hours),
        0.0,
        0.0,
        devices=devices,
        server_device_seconds=used * 3600,
        server_devices=server,
    )
    seconds = affordable_seconds(found, places)
    assert seconds is not None
    assert found.device_seconds_used == used * 3600
    assert seconds * (devices + server) <= max(0.0, hours - used) * 3600 * (1 + 1e-9)
