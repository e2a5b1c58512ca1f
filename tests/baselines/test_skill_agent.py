"""The skill-based agent end to end: real sockets, tools, one growing conversation on disk, kills, and bad replies."""

from __future__ import annotations

import json
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from command_line import PATIENCE, started
from kills import killed_at_every_step
from model_samples import KEY, PRICES, QUICK
from rehearsed_world import Rehearsed, settings
from scripted_endpoint import Asked, Said, ScriptedEndpoint, refusal
from skill_planner import called, check, planned, sizes, training, well_formed, written

from llmzero_hpc.agents.llm.client import Client
from llmzero_hpc.agents.llm.ledger import Ledger, estimate_conversation
from llmzero_hpc.agents.llm.parts import ModelParts
from llmzero_hpc.agents.llm.secret import Key
from llmzero_hpc.baselines.registry import check_method, make_agents
from llmzero_hpc.baselines.skills.agent import ROUNDS, SkillAgent
from llmzero_hpc.baselines.skills.conversation import AGENT
from llmzero_hpc.controller.comparison import Member, comparison
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.report.calls import calls_about
from llmzero_hpc.report.comparison_markdown import page
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.node import NodeStatus, TransitionKind
from llmzero_hpc.sections import LanguageModelAgents
from llmzero_hpc.store.agent_calls import CallLog, Spending
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.tree import Tree


def config(url: str, **changes: Any) -> SearchConfig:
    """A rehearsed search by the skill agent; `agents` in `changes` is merged in."""
    model = {"base_url": url, "model": "tiny", "prices": PRICES, "max_retries": 1, **changes.pop("agents", {})}
    return settings("skill_agent", agents=model, **changes)


def total(directory: SearchDirectory) -> Spending:
    return sum(CallLog(directory).spending().values(), start=Spending())


def world(root: Path, url: str, **changes: Any) -> Rehearsed:
    return Rehearsed(root, config(url, **changes))


def trained(tree: Tree) -> list[tuple[object, ...]]:
    return [(one.kind, one.parent, one.configuration, one.resume, one.status) for one in tree]


def results(asked: Asked) -> str:
    """All that tools have answered so far."""
    return "\n".join(one["content"] for one in asked.body["messages"] if one["role"] == "tool")


def test_a_search_by_the_skill_agent(tmp_path: Path) -> None:
    """It resumes the best, stops, and ends by itself; each call pays for the whole conversation before it."""

    def script(asked: Asked) -> Said:
        well_formed(asked)
        usage = {"prompt_tokens": sizes(asked), "completion_tokens": 100, "total_tokens": sizes(asked) + 100}
        return called(planned(asked, 5), number=asked.number, usage=usage)

    with ScriptedEndpoint(script) as endpoint:
        search = world(tmp_path / "s", endpoint.url, budget={"iterations": 16})
        tree = search.search()
    assert [node.status for node in tree][:5] == [
        NodeStatus.COMPLETED,
        NodeStatus.COMPLETED,
        NodeStatus.EARLY_STOPPED,
        NodeStatus.COMPLETED,
        NodeStatus.COMPLETED,
    ]
    assert tree[1].kind is TransitionKind.EVOLVE
    assert tree[1].resume is not None
    assert tree[1].resume.node == 0
    last = tree[5]
    assert (last.status, last.configuration, last.attempts) == (NodeStatus.CANCELLED, None, ())
    assert last.rationale is not None
    assert "5 phases were trained" in last.rationale.diagnosis
    assert tree.iterations() == 5, "a phase that nobody wanted is none"
    assert tree.evaluation is not None
    assert tree.evaluation.score is not None

    sent = [sizes(asked) for asked in endpoint.asked]
    assert sent == sorted(sent), "nothing is ever left out of the conversation"
    spent = total(search.directory)
    assert (spent.calls, spent.input_tokens) == (len(sent), sum(sent))
    assert spent.dollars == pytest.approx(sum(sent) * 2e-6 + len(sent) * 100 * 10e-6)
    assert make_agents(search.config, search.directory).spending() == spent, "the ledger is what is on disk"
    assert {agent for _, agent in CallLog(search.directory).spending()} == {AGENT}
    data = read(search.directory, metrics=())
    [first] = calls_about(search.directory, data.nodes[1])[:1]
    assert first.used
    assert first.rounds[0].content["calls"][0]["tool"] == "submit-training"
    second = calls_about(search.directory, data.nodes[2])[0]
    assert "Phase 1 is" in second.rounds[0].results[0] or "Phase 1 has ended" in second.rounds[0].results[0]
    tools = [tool["function"]["name"] for tool in endpoint.asked[0].body["tools"]]
    assert len(tools) == 8
    assert "submit-training" in tools


def test_no_word_of_the_test_rows(tmp_path: Path) -> None:
    with ScriptedEndpoint(lambda asked: called(planned(asked, 3), number=asked.number)) as endpoint:
        tree = world(tmp_path / "s", endpoint.url).search()
    assert tree.evaluation is not None
    assert tree.evaluation.score is not None
    shown = "\n".join(json.dumps(asked.body) for asked in endpoint.asked)
    assert f"{tree.evaluation.score:.4f}" not in shown
    assert "test_score" not in shown


def test_it_is_the_same_search_however_often_it_is_killed(tmp_path: Path) -> None:
    """Controllers that die between any two ticks: the same phases, and no reply is paid for twice."""
    with ScriptedEndpoint(lambda asked: called(planned(asked, 5))) as endpoint:
        whole = world(tmp_path / "whole", endpoint.url)
        expected = whole.search()
        count = len(endpoint.asked)
        killed = world(tmp_path / "killed", endpoint.url)
        for number in range(300):
            if killed.tick().finished:
                break
            if number % 3:
                killed.agents = make_agents(killed.config, SearchDirectory.open(killed.directory.root))
                killed.restart()
            for job in killed.live():
                killed.work_off(job)
            killed.carry_out_cancellations()
        assert trained(killed.tree) == trained(expected)
        assert total(killed.directory).calls == count
        bodies = [asked.body["messages"] for asked in endpoint.asked]
    assert bodies[count : 2 * count] == bodies[:count], "word for word the same conversation"


def test_what_its_words_cost_stands_beside_what_they_brought(tmp_path: Path) -> None:
    """In a comparison with a method that asks nobody."""
    with ScriptedEndpoint(lambda asked: called(planned(asked, 3), number=asked.number)) as endpoint:
        members = [Member("skills", config(endpoint.url)), Member("once", settings("practitioner"))]
        found = []
        for one in members:
            search = Rehearsed(tmp_path / one.method, one.config)
            search.search()
            found.append((one, search.directory))
    result = comparison(found, "skills")
    spent = total(found[0][1])
    rows = {row.method: row for row in result.methods}
    assert (rows["skills"].tokens, rows["skills"].dollars) == (spent.tokens, pytest.approx(spent.dollars))
    assert (rows["once"].tokens, rows["once"].dollars) == (0, 0)
    text = page(result, name="c", unit="CPU-hours", simulated=True, changes={}, picture="")
    assert f"| skills | {spent.tokens / 1e6:.3f} | {spent.dollars:.2f} |" in text


def agent(directory: SearchDirectory) -> SkillAgent:
    """Quick to repeat, and with a key that must never show."""
    own = directory.record.config.agents
    assert isinstance(own, LanguageModelAgents)
    key, log = Key(KEY), CallLog(directory)
    ledger = Ledger(own, directory.record.config.budget.api_dollars, log.spending())
    return SkillAgent(
        directory.record.config, ModelParts(own, Client(own, key, QUICK), log, ledger, key), 64, lambda _: []
    )


@pytest.mark.slow
def test_a_kill_at_every_step_of_a_turn(tmp_path: Path) -> None:
    """Between any two writes: what was answered is on disk and used, and the conversation goes on from there."""
    script_calls = [("generate-config", training(0, 16, 2e-3)), ("submit-training", training(0, 16, 2e-3))]

    def script(asked: Asked) -> Said:
        well_formed(asked)
        seen = sum(one["role"] == "assistant" for one in asked.body["messages"])
        return called(script_calls[min(seen, 1)], number=seen)

    with ScriptedEndpoint(script) as endpoint:
        begun = world(tmp_path / "begun", endpoint.url, budget={"iterations": 1})
        begun.search()
        request = begun.controller._counsel._questions.proposal(
            begun.tree.adding(_planned(begun.tree)), _planned(begun.tree), 3
        )
        root = tmp_path / "search"

        def prepare() -> None:
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(begun.directory.root, root)
            endpoint.asked.clear()

        def turn() -> object:
            return agent(SearchDirectory.open(root)).propose(request)

        prepare()
        expected = turn()
        assert len(endpoint.asked) == 2
        kills = 0
        for step in killed_at_every_step(prepare, turn):
            kills += 1
            found, answered = total(SearchDirectory.open(root)), len(endpoint.asked)
            assert answered - found.calls in {0, 1}, step
            assert turn() == expected, step
            assert len(endpoint.asked) == answered + 2 - found.calls, f"{step}: nothing on disk is paid for again"
            assert total(SearchDirectory.open(root)).calls == 2, step
        assert kills > 60


def _planned(tree: Tree) -> Any:
    from llmzero_hpc.search.node import Node

    return Node(id=len(tree), kind=TransitionKind.SCRATCH, parent=0, seed=1, created_at=0.0)


@pytest.mark.slow
def test_real_jobs_and_a_daemon_that_is_started_anew(tmp_path: Path) -> None:
    """The waiting for a training is a tool's answer that comes later, to whichever controller is there then."""
    with ScriptedEndpoint(lambda asked: called(planned(asked, 3), number=asked.number)) as endpoint:
        found = config(endpoint.url, tick_seconds=0.02)
        directory = SearchDirectory.create(tmp_path / "s", SearchRecord.new(found, 64, time.time()))
        deadline = time.monotonic() + 500
        finished = False
        while not finished:
            with Daemon(directory) as daemon:
                for _ in range(12):
                    finished = daemon.tick().finished
                    if finished:
                        break
                    time.sleep(0.02)
            assert time.monotonic() < deadline, directory.read_tree()
        tree = directory.read_tree()
        assert [node.status.is_final for node in tree] == [True] * 4
        assert total(directory).calls <= len(endpoint.asked)
        assert sum(node.attempts[0].device_seconds > 0 for node in tree if node.attempts) == 3


@pytest.mark.slow
def test_a_program_that_is_killed_while_the_model_speaks(tmp_path: Path) -> None:
    """SIGKILL to the real program right after each reply that it was sent, and once more from where it was."""
    deaths = [2, 4, 5]
    program: list[subprocess.Popen[str]] = []

    def script(asked: Asked) -> Said:
        well_formed(asked)
        said = called(planned(asked, 4), number=asked.number)
        if asked.number in deaths:
            program[-1].send_signal(signal.SIGKILL)
            program[-1].wait()
        return said

    with ScriptedEndpoint(script) as endpoint:
        found = config(endpoint.url, tick_seconds=0.05).model_dump(mode="json", exclude_defaults=True)
        (tmp_path / "search.yaml").write_text(yaml.safe_dump(found | {"task": {"name": "chains"}}), encoding="utf-8")
        for _ in range(len(deaths) + 1):
            with started("run", "search.yaml", folder=tmp_path) as process:
                program.append(process)
                process.communicate(timeout=PATIENCE)
        assert [process.returncode for process in program] == [-signal.SIGKILL] * len(deaths) + [0]
        directory = SearchDirectory.open(tmp_path / "state" / "rehearsed")
        tree = directory.read_tree()
        assert tree.iterations() == 4
        assert total(directory).calls == len(endpoint.asked) - len(deaths), "only replies that nobody was left to take"
        assert all(len(node.attempts) == 1 for node in tree if node.attempts)


BAD: list[tuple[str, Said, str]] = [
    ("no tool", Said(content="Let me think."), "No tool was called"),
    ("an unknown tool", called(("bash", {"command": "rm -rf /"})), 'There is no tool "bash"'),
    ("no JSON", Said(message={"tool_calls": [{"id": "x", "type": "function", "function": {
        "name": "submit-training", "arguments": '{"changes": [' }}]}), "Not done"),
    ("no object", called(("submit-training", ["now"])), "Not done"),  # type: ignore[arg-type]
    ("keys missing", called(("submit-training", {"epochs": 1})), "resume_phase: Field required"),
    ("a path", called(("submit-training", training(0, 16, 2e-3, overrides=[
        {"key": "trainer.default_local_dir", "value": "/etc/passwd"}]))), "one word"),
    ("no such checkpoint", called(("submit-training", training(0, 13, 2e-3))), "step 13 is not a checkpoint of node 0"),
    ("no such phase", called(("submit-training", training(7, 16, 2e-3))), "there is no phase 7"),
    ("a step without a phase", called(("submit-training", training(None, 16, 2e-3))), "must be null"),
    ("a fixed one", called(("submit-training", training(0, 16, 2e-3, changes=[
        {"name": "lora_rank", "value": 64, "why": "more"}]))), "lora_rank is fixed"),
    ("a whole budget", called(("submit-training", training(0, 16, 2e-3, epochs=900.0))), "more than 4 times"),
    ("nothing runs", called(("check-training", check(0, "stop"))), "No phase is running"),
    ("cut off", Said(content="I shall", finish_reason="length"), "cut off"),
    ("tool calls of any kind", Said(message={"tool_calls": [7, {"function": 3}]}), "There is no tool"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "told"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_a_model_gets_wrong_is_told_to_it(reply: Said, told: str, tmp_path: Path) -> None:
    """It may try again, and nothing of it is ever carried out."""

    def script(asked: Asked) -> Said:
        well_formed(asked)
        return reply if asked.number == 1 else called(planned(asked, 2), number=asked.number)

    with ScriptedEndpoint(script) as endpoint:
        tree = world(tmp_path / "s", endpoint.url).search()
    newest = endpoint.asked[1].body["messages"][-1]
    assert told in newest["content"]
    assert [node.status for node in tree] == [NodeStatus.COMPLETED, NodeStatus.COMPLETED, NodeStatus.CANCELLED]


def test_skills_that_only_tell_something(tmp_path: Path) -> None:
    asks = [
        ("prepare-dataset", {}), ("define-reward", {}), ("download-model", {}),
        ("validate-run", training(0, 16, 2e-3)), ("generate-config", training(0, 16, 2e-3)),
        ("check-training", check(0, "look")),
    ]  # fmt: skip

    def script(asked: Asked) -> Said:
        return called(*asks) if asked.number == 1 else called(planned(asked, 2), number=asked.number)

    with ScriptedEndpoint(script) as endpoint:
        world(tmp_path / "s", endpoint.url).search()
        answers = [one["content"] for one in endpoint.asked[1].body["messages"] if one["role"] == "tool"]
    rows, reward, model, valid, whole, looked = answers
    assert "64 training rows" in rows
    assert "val_score" in reward
    assert "in place" in model
    assert "It can be trained" in valid
    assert "learning_rate: 0.002" in whole
    assert "16 steps" in whole
    assert "| val_score |" in looked


def test_a_failure_is_shown_with_its_log_and_repaired_by_nobody_else(tmp_path: Path) -> None:
    failing = {"step_seconds": 0, "failure_rate": 1, "train_rows": 64}
    with ScriptedEndpoint(lambda asked: called(planned(asked, 2), number=asked.number)) as endpoint:
        search = world(tmp_path / "s", endpoint.url, rehearsal=failing)
        search.tick()
        [job] = search.live()
        search.work_off(job)
        (job.request.directory / "trainer.log").write_text("RuntimeError: a reason of its own")
        tree = search.search()
        first = endpoint.asked[0].text
    assert "Phase 0 has ended: failed" in first
    assert "RuntimeError: a reason of its own" in first
    assert [node.status for node in tree][:2] == [NodeStatus.FAILED] * 2
    assert TransitionKind.DEBUG not in {node.kind for node in tree}


def test_an_endpoint_without_tools(tmp_path: Path) -> None:
    """It is learnt once; calls are then written down as JSON, and results are said."""

    def script(asked: Asked) -> Said:
        if "tools" in asked.body:
            return refusal(400, '"auto" tool choice requires --enable-auto-tool-choice to be set')
        assert all(one["role"] != "tool" for one in asked.body["messages"])
        return written(planned(asked, 4))

    with ScriptedEndpoint(script) as endpoint:
        tree = world(tmp_path / "s", endpoint.url).search()
        assert sum("tools" in asked.body for asked in endpoint.asked) == 1
        assert '"name": "submit-training"' in endpoint.asked[1].text, "the tools are told in words"
    assert [node.status for node in tree][-1] is NodeStatus.CANCELLED
    assert tree.iterations() == 4
    assert tree[1].kind is TransitionKind.EVOLVE


def test_a_conversation_moves_to_an_endpoint_without_tools(tmp_path: Path) -> None:
    with ScriptedEndpoint(lambda asked: called(planned(asked, 4), number=asked.number)) as endpoint:
        search = world(tmp_path / "s", endpoint.url)
        while len(search.tree) < 3:
            search.tick()
            for job in search.live():
                search.work_off(job)

        def script(asked: Asked) -> Said:
            if "tools" in asked.body:
                return refusal(400, "this model has no tools")
            assert all(one["role"] != "tool" and "tool_calls" not in one for one in asked.body["messages"])
            return written(planned(asked, 4))

        endpoint.script = script
        search.agents = make_agents(search.config, search.directory)
        search.restart()
        tree = search.search()
    assert tree.iterations() == 4


def test_a_model_that_decides_nothing_is_not_asked_for_ever(tmp_path: Path) -> None:
    """The best phase is repeated instead, as for any agent that fails."""
    with ScriptedEndpoint(lambda _: Said(content="Hmm.")) as endpoint:
        tree = world(tmp_path / "s", endpoint.url, budget={"iterations": 2}).search()
        assert len(endpoint.asked) >= ROUNDS
    assert tree[1].rationale is not None
    assert tree[1].rationale.author == "fallback"


def test_when_its_money_is_spent_its_work_is_over(tmp_path: Path) -> None:
    """The conversation grows until a further call could cost more than is left."""
    with ScriptedEndpoint(lambda asked: called(planned(asked, 99), number=asked.number)) as endpoint:
        search = world(
            tmp_path / "s",
            endpoint.url,
            budget={"iterations": 50, "api_dollars": 0.12},
            agents={"max_output_tokens": 1000},
        )
        tree = search.search()
    assert tree[-1 % len(tree)].rationale is not None
    assert "language models are spent" in tree.nodes[-1].rationale.diagnosis  # type: ignore[union-attr]
    assert 2 < len(tree) < 50
    assert total(search.directory).dollars <= 0.12


def test_when_the_conversation_is_too_long_its_work_is_over(tmp_path: Path) -> None:
    def script(asked: Asked) -> Said:
        if asked.number > 4:
            return refusal(400, "This model's maximum context length is 8192 tokens")
        return called(planned(asked, 99), number=asked.number)

    with ScriptedEndpoint(script) as endpoint:
        tree = world(tmp_path / "s", endpoint.url, budget={"iterations": 50}).search()
    assert "too long" in tree.nodes[-1].rationale.diagnosis  # type: ignore[union-attr]
    assert tree.nodes[-1].status is NodeStatus.CANCELLED


def test_the_key_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", KEY)

    def script(asked: Asked) -> Said:
        arguments = training(0, 16, 2e-3, diagnosis=f"my key is {asked.headers['authorization']}")
        return called(("submit-training", arguments)) if asked.number == 1 else called(planned(asked, 2))

    with ScriptedEndpoint(script) as endpoint:
        world(tmp_path / "s", endpoint.url, agents={"api_key_env": "MODEL_KEY"}).search()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agents": {"kind": "playbook"}}, "method skill_agent needs a language model"),
        (
            {"max_parallel_phases": 2, "agents": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}},
            "one phase at a time",
        ),
    ],
)
def test_what_it_cannot_work_with(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_method(settings("skill_agent", **changes))


def test_what_its_calls_may_come_to_is_told_before() -> None:
    """Twice the events cost about four times as much."""
    own = LanguageModelAgents.model_validate({"base_url": "http://127.0.0.1:9/v1", "model": "m", "prices": PRICES})
    few, many = (estimate_conversation(own, events) for events in (100, 200))
    assert (few.calls, many.calls) == (200, 400)
    assert 3 < many.input_tokens / few.input_tokens < 4
    assert few.dollars == pytest.approx(few.input_tokens * 2e-6 + few.output_tokens * 10e-6)
