"""Whole searches, real processes and real sockets: rehearsed training, and a model that is only mostly there."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from model_samples import KEY, analyzer_reply, config, proposer_reply, said, stopper_reply
from scripted_endpoint import Asked, Said, ScriptedEndpoint, own_port, refusal

from llmzero_hpc.cli.create import template
from llmzero_hpc.config import load_text
from llmzero_hpc.controller.creation import checked, create
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.search.node import Ending, NodeStatus, TransitionKind
from llmzero_hpc.store.agent_calls import CallLog, Spending
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord
from llmzero_hpc.tasks.chains.cache import ensure_policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree

pytestmark = pytest.mark.slow

_TRAIN_ROWS = 64
_PATIENCE_SECONDS = 1200


def quick(url: str, iterations: int = 4, **changes: Any) -> SearchConfig:
    """Phases of eight steps, each validation judged."""
    return config(
        url,
        **{
            "configuration": {"batch_size": 16, "epochs": 2, "max_response_length": 512},
            "validate_every_steps": 2,
            "early_stop": {"interval_seconds": 0, "first_step": 4},
            "budget": {"iterations": iterations},
            "rehearsal": {"step_seconds": 0.0, "train_rows": _TRAIN_ROWS, "failure_rate": 0.0},
            "tick_seconds": 0.02,
            **changes,
        },
    )


def created(root: Path, settings: SearchConfig) -> SearchDirectory:
    return SearchDirectory.create(root, SearchRecord.new(settings, _TRAIN_ROWS, time.time()))


def run(directory: SearchDirectory) -> Tree:
    """The search from where it is to its end."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with Daemon(directory) as daemon:
        while not daemon.tick().finished:
            assert time.monotonic() < deadline, directory.read_tree()
            time.sleep(0.02)
    return directory.read_tree()


class Oracle:
    """Answers well, from what the prompt shows; STOPs every phase that may be judged, but for the first."""

    def __init__(self) -> None:
        self.directory: SearchDirectory | None = None

    def __call__(self, asked: Asked) -> Said:
        return Said(content=self.reply(asked))

    def reply(self, asked: Asked) -> str:
        """The text of a good reply."""
        user = asked.text
        if "CONTINUE or STOP?" in user:
            rows = re.findall(r"^\| (\d+) \| ([\d.]+) \|", user, re.MULTILINE)
            points = [{"step": int(step), "score": float(score)} for step, score in rows]
            return said(stopper_reply(validation_scores=points))
        if "propose the repair" in user:
            return said(analyzer_reply(changes=[{"name": "learning_rate", "value": 1e-5, "why": "calmer"}]))
        assert self.directory is not None
        tree = self.directory.read_tree()
        planned = next(node for node in tree if node.status is NodeStatus.PLANNED)
        step, root = None, tree[0].configuration
        if planned.kind is TransitionKind.EVOLVE and planned.parent is not None:
            step = max(point.step for point in tree[planned.parent].checkpoints)
        assert root is not None
        changes = [{"name": "learning_rate", "value": 1e-5 * (1 + planned.id), "why": "one of its own for each node"}]
        return said(proposer_reply(step, changes=changes, epochs=root.epochs))


def proposed(tree: Tree) -> list[Node]:
    """Nodes that somebody proposed."""
    return [node for node in tree if node.id > 0]


def authors(tree: Tree) -> set[str]:
    return {node.rationale.author for node in proposed(tree) if node.rationale}


@contextmanager
def scripted(script: Any, port: int = 0) -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint(script, port) as endpoint:
        yield endpoint


def test_a_search_by_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With a key, at prices, and never a trace of the key anywhere, however much is logged."""
    monkeypatch.setenv("MODEL_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    oracle = Oracle()

    def script(asked: Asked) -> Said:
        # The log of a service that tells more than it should.
        headers = {"x-your-key": asked.headers["authorization"]}
        content = oracle.reply(asked)
        reason = f"It cannot catch up, {asked.headers['authorization']}."
        return Said(content=content.replace("It can no longer catch up.", reason), headers=headers)

    with scripted(script) as endpoint:
        settings = quick(endpoint.url, agents={"api_key_env": "MODEL_KEY"}, rehearsal={
            "step_seconds": 0.0, "train_rows": _TRAIN_ROWS, "failure_rate": 0.6,
        }, budget={"iterations": 6})  # fmt: skip
        oracle.directory = directory = created(tmp_path / "search", settings)
        tree = run(directory)
    assert authors(tree) == {"tiny"}
    assert {node.status for node in tree} & {NodeStatus.FAILED}, "the error analyzer had something to do"
    asked_of = {call.agent for node in tree for call in CallLog(directory).calls(node.id)}
    assert asked_of == {"proposer", "early_stopper", "error_analyzer"}
    stopped = [node for node in tree if node.stop is not None]
    assert stopped
    assert all(node.stop and "validation" in node.stop.reason for node in stopped)
    spent = sum(CallLog(directory).spending().values(), start=Spending())
    assert spent.calls == len(endpoint.asked)
    assert math.isclose(spent.dollars, 0.003 * spent.calls)
    assert all(asked.headers["authorization"] == f"Bearer {KEY}" for asked in endpoint.asked)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in caplog.text


@pytest.mark.training
def test_the_demo_by_a_model_that_sees(tmp_path: Path) -> None:
    """Real GRPO: what was proposed is trained, from the adapter that was chosen."""
    ensure_policy()
    oracle = Oracle()
    with scripted(oracle) as endpoint:
        settings = yaml.safe_load(template("demo", "search.yaml"))
        settings["configuration"]["epochs"] = 0.022
        settings |= {
            "validate_every_steps": 2,
            "early_stop": {"interval_seconds": 0, "first_step": 4},
            "budget": {"iterations": 2},
            "tick_seconds": 0.2,
            "live_views": False,
            "agents": {"base_url": endpoint.url, "model": "tiny"},
        }
        oracle.directory = directory = create(
            load_text(yaml.safe_dump(settings), "demo"), tmp_path / "demo", time.time()
        )
        tree = run(directory)
    assert authors(tree) == {"tiny"}
    second = tree[1]
    assert second.configuration is not None
    assert second.configuration.learning_rate == 2e-5
    assert second.resume is not None
    assert second.resume.step == tree[0].last_step
    assert second.stop is not None, "of its own validation scores"
    assert tree.evaluation is not None
    calls = [call for node in tree for call in CallLog(directory).calls(node.id)]
    assert {call.agent for call in calls} == {"proposer", "early_stopper"}
    assert {len(asked.images) for asked in endpoint.asked if "CONTINUE" in asked.text} == {2}
    assert {len(asked.images) for asked in endpoint.asked if "CONTINUE" not in asked.text} <= {3, 4}
    assert not re.search(r"test.{0,10}score", "".join(asked.text for asked in endpoint.asked), re.IGNORECASE)


def test_an_endpoint_without_schemas_and_with_bad_days(tmp_path: Path) -> None:
    """Prose, whole or streamed, refusals, storms, dropped connections, half replies: the search ends all the same."""
    oracle = Oracle()
    troubles = [
        refusal(429, "slow down", Retry_After="0.05"),
        Said(drops=True),
        refusal(503, "loading"),
        Said(content='{"half', finish_reason="abort"),
        refusal(500, "oops"),
    ]

    def script(asked: Asked) -> Said:
        if "response_format" in asked.body:
            return refusal(400, "response_format of type json_schema is not supported by this model")
        if asked.number % 3 == 0:
            return troubles[asked.number // 3 % len(troubles)]
        content = f"<think>Let me see.</think>\nHere you are:\n```json\n{oracle.reply(asked)}\n```"
        return Said(content=content, streams=asked.number % 2 == 0)

    with scripted(script) as endpoint:
        oracle.directory = directory = created(tmp_path / "search", quick(endpoint.url))
        tree = run(directory)
    assert authors(tree) == {"tiny"}
    structured = ["response_format" in asked.body for asked in endpoint.asked]
    assert structured.index(False) == structured.count(True) <= 2, "it is learnt once"
    plain = endpoint.asked[-1].text
    assert '"additionalProperties": false' in plain, "the form is told in words"


def test_a_model_that_talks_nonsense_leaves_a_search_by_the_playbook(tmp_path: Path) -> None:
    with scripted(lambda _: Said(content="STOP everything and run `rm -rf /`.")) as endpoint:
        tree = run(created(tmp_path / "search", quick(endpoint.url)))
    assert authors(tree) == {"playbook"}
    assert not [node for node in tree if node.stop], "nothing stops by accident"
    assert all(node.status is NodeStatus.COMPLETED for node in tree)


@pytest.fixture
def port() -> Iterator[int]:
    with own_port() as found:
        yield found


def test_a_search_waits_for_an_endpoint_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr("llmzero_hpc.controller.desk._FIRST_WAIT", 0.2)
    monkeypatch.setattr("llmzero_hpc.controller.desk._LONGEST_WAIT", 0.4)
    monkeypatch.setattr("llmzero_hpc.agents.llm.gate.Patience.__init__.__defaults__", (0.01, 0.1, 2, 0.1, 0.2))
    oracle = Oracle()
    url = f"http://127.0.0.1:{port}/v1"
    down = {"fallback": "wait", "max_retries": 0}
    oracle.directory = directory = created(tmp_path / "search", quick(url, agents=down))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with Daemon(directory) as daemon:
        told: list[str] = []
        while len(told) < 30:
            assert time.monotonic() < deadline
            outcome = daemon.tick()
            if "cannot be reached" in outcome.waiting_for:
                told.append(outcome.waiting_for)
            time.sleep(0.02)
        tree = directory.read_tree()
        assert [node.status for node in tree] == [NodeStatus.COMPLETED, NodeStatus.PLANNED]
        assert "asked again" in told[0]
        with scripted(oracle, port):
            while not daemon.tick().finished:
                assert time.monotonic() < deadline, daemon.controller.tree
                time.sleep(0.02)
    assert authors(directory.read_tree()) == {"tiny"}
    [call] = [call for call in CallLog(directory).calls(1) if call.agent == "proposer"]
    assert "cannot be reached" in (call.folder / "failures.jsonl").read_text()


OUTAGES = (
    (Said(drops=True), "cannot be reached"),
    (refusal(503, "loading"), "in trouble"),
    (refusal(429, "too many requests", Retry_After="0.05"), "asked too often"),
    (Said(before=lambda: time.sleep(4.0)), "did not reply within"),
    (refusal(401, "Incorrect API key"), "refuses"),
)


def test_phases_run_through_outages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each from the proposal of a phase until its successor is due; then all is well until that is proposed."""
    monkeypatch.setattr("llmzero_hpc.controller.desk._FIRST_WAIT", 0.2)
    monkeypatch.setattr("llmzero_hpc.controller.desk._LONGEST_WAIT", 0.4)
    monkeypatch.setattr("llmzero_hpc.agents.llm.refusals._CONFIGURATION_SECONDS", 0.2)
    monkeypatch.setattr("llmzero_hpc.agents.llm.gate.Patience.__init__.__defaults__", (0.01, 0.1, 2, 0.1, 0.2))
    oracle, over, lasts = Oracle(), 0, False

    def script(asked: Asked) -> Said:
        nonlocal lasts
        if lasts:
            return OUTAGES[over][0]
        content = oracle.reply(asked)
        lasts = "Propose the next phase" in asked.text and over < len(OUTAGES)
        return Said(content=content)

    with scripted(script) as endpoint:
        agents = {"fallback": "wait", "max_retries": 1, "timeout_seconds": 1.5}
        oracle.directory = directory = created(
            tmp_path / "search", quick(endpoint.url, 2 + len(OUTAGES), agents=agents)
        )
        deadline, finished = time.monotonic() + _PATIENCE_SECONDS, False
        with Daemon(directory) as daemon:
            while not finished:
                assert time.monotonic() < deadline, (over, lasts, directory.read_tree())
                outcome = daemon.tick()
                finished = outcome.finished
                waits = daemon.controller.tree[len(daemon.controller.tree) - 1].status is NodeStatus.PLANNED
                if lasts and waits and OUTAGES[over][1] in outcome.waiting_for:
                    over, lasts = over + 1, False
                time.sleep(0.02)
    tree = directory.read_tree()
    assert over == len(OUTAGES)
    assert authors(tree) == {"tiny"}, "nobody else proposed meanwhile"
    for number, (_, words) in enumerate(OUTAGES, 1):
        node = tree[number]
        assert (node.status, node.stop) == (NodeStatus.COMPLETED, None)
        assert [attempt.ending for attempt in node.attempts] == [Ending.COMPLETED], "its job was left alone"
        assert node.last_step == node.first_step + 7
        told = [call.folder / "failures.jsonl" for call in CallLog(directory).calls(number) if call.agent != "proposer"]
        assert any(words in file.read_text() for file in told if file.exists()), "it was to be judged"


def test_a_tick_by_cron_waits_for_the_answer(tmp_path: Path) -> None:
    """Its key comes from a file, as nobody exports one for cron, and stays in there."""
    oracle = Oracle()
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(KEY)
    gate = threading.Event()

    def script(asked: Asked) -> Said:
        content = oracle.reply(asked)
        return Said(content=content, before=lambda: gate.wait(1.0))

    with scripted(script) as endpoint:
        settings = quick(endpoint.url, iterations=2, agents={"api_key_file": key})
        oracle.directory = directory = created(tmp_path / "search", settings)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while len(directory.read_tree()) < 2:
            assert time.monotonic() < deadline
            with Daemon(directory, by_cron=True) as daemon:
                daemon.tick_alone()
        assert directory.read_tree()[1].status is not NodeStatus.PLANNED, "no answer is left for nobody"
        gate.set()
        assert authors(run(directory)) == {"tiny"}
    assert {asked.headers["authorization"] for asked in endpoint.asked} == {f"Bearer {KEY}"}
    assert [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == [key]


def test_without_its_key_no_search_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_KEY", raising=False)
    settings = quick("http://127.0.0.1:9/v1", agents={"api_key_env": "MODEL_KEY"})
    with pytest.raises(ConfigurationError, match="MODEL_KEY") as told:
        checked(settings)
    assert "export MODEL_KEY" in told.value.next_step
    directory = created(tmp_path / "search", settings)
    with pytest.raises(ConfigurationError, match="MODEL_KEY"):
        Daemon(directory)
    monkeypatch.setenv("MODEL_KEY", KEY)
    with Daemon(directory) as daemon:
        daemon.tick()
    (key := tmp_path / "key").write_text(KEY)
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        checked(quick("http://127.0.0.1:9/v1", agents={"api_key_file": key}))
