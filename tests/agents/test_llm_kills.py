"""A controller killed at every step of a call: no answer that is on disk is paid for twice, and no spending is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from kills import killed_at_every_step
from model_samples import agents, analyzer_reply, config, proposer_reply, said, search_directory, stopper_reply
from playbook_samples import failure_request, proposal_request, stop_request, validations
from scripted_endpoint import Asked, Said, ScriptedEndpoint

from llmzero_hpc.store.agent_calls import CallLog, Spending
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.agents.llm.agents import LanguageModel

REQUEST = replace(proposal_request(validations([0.3, 0.4, 0.5])), child=1)
FALLING = stop_request([0.30, 0.29, 0.28, 0.27], [0.5, 0.6, 0.7, 0.8])
FAILED = replace(failure_request("CUDA out of memory"), child=1)
GOOD, BAD = proposer_reply(resume_step=30), proposer_reply(resume_step=1)
CALLS: dict[str, tuple[Callable[[LanguageModel], object], tuple[dict[str, Any], ...]]] = {
    "proposer": (lambda model: model.propose(REQUEST), (BAD, GOOD)),
    "early_stopper": (lambda model: model.judge(FALLING), (stopper_reply(FALLING),)),
    "error_analyzer": (lambda model: model.repair(FAILED), (analyzer_reply(),)),
}
"""What each agent is asked, and what it hears: of the proposals the first may not be used, and is sent back."""


def script(asked: Asked) -> Said:
    """As above, for whom it is that asks."""
    replies = next(replies for _, replies in CALLS.values() if asked.properties == set(replies[0]))
    return Said(content=said(replies[len(asked.body["messages"]) // 2 - 1]))


def total(directory: SearchDirectory) -> Spending:
    return sum(CallLog(directory).spending().values(), start=Spending())


def refusing(patched: pytest.MonkeyPatch, name: str) -> None:
    """The disk has no room for a file of that name."""
    real = os.open

    def refuse(path: Any, *args: Any, **keywords: Any) -> int:
        if name in os.fspath(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path, *args, **keywords)

    patched.setattr(os, "open", refuse)


@pytest.mark.slow
@pytest.mark.parametrize("agent", CALLS)
def test_a_kill_at_every_step_of_a_call(agent: str, tmp_path: Path) -> None:
    root = tmp_path / "search"
    with ScriptedEndpoint(script) as endpoint:
        settings = config(endpoint.url)

        def prepare() -> None:
            shutil.rmtree(root, ignore_errors=True)
            search_directory(root, settings)
            endpoint.asked.clear()

        def call() -> object:
            return CALLS[agent][0](agents(SearchDirectory.open(root)))

        prepare()
        expected, rounds = call(), len(CALLS[agent][1])
        assert len(endpoint.asked) == rounds
        assert "tiny" in repr(expected)
        kills = 0
        for step in killed_at_every_step(prepare, call):
            kills += 1
            found, answered = total(SearchDirectory.open(root)), len(endpoint.asked)
            assert answered - found.calls in {0, 1}, step
            assert found.unanswered >= answered - found.calls, f"{step}: what may have been paid for is known"
            assert found.dollars == pytest.approx(0.003 * found.calls), step
            assert call() == expected, step
            assert len(endpoint.asked) == answered + rounds - found.calls, f"{step}: nothing on disk is paid for again"
            assert total(SearchDirectory.open(root)).calls == rounds, step
        assert kills > 30 * rounds


def test_an_answer_that_the_disk_refuses_is_used_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedEndpoint(lambda _: Said(content=said(GOOD))) as endpoint:
        directory = search_directory(tmp_path / "search", config(endpoint.url))
        model = agents(directory)
        with monkeypatch.context() as patched:
            refusing(patched, "reply_1.json")
            assert model.propose(REQUEST).rationale.author == "tiny"
        assert total(directory).calls == 0
        assert model.spending().dollars == pytest.approx(0.003)
        model.propose(replace(REQUEST, iterations_left=1))
        assert total(directory).calls == 2
        assert agents(directory).spending().dollars == pytest.approx(0.006)


def test_a_call_that_cannot_be_noted_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedEndpoint(script) as endpoint:
        directory = search_directory(tmp_path / "search", config(endpoint.url))
        model = agents(directory)
        refusing(monkeypatch, "request_1.json")
        assert model.propose(REQUEST).rationale.author == "playbook"
        assert endpoint.asked == []


def test_of_two_who_ask_at_once_the_first_answer_stands(tmp_path: Path) -> None:
    with ScriptedEndpoint(
        lambda asked: Said(content=said(proposer_reply(30, diagnosis=f"{asked.number}")))
    ) as endpoint:
        directory = search_directory(tmp_path / "search", config(endpoint.url))
        first = agents(directory).propose(REQUEST)
        [call] = CallLog(directory).calls(1)
        reply = call.reply(1)
        assert reply is not None
        late = replace(reply, content=said(proposer_reply(30, diagnosis="late")))
        call.answer(1, late)
        assert agents(directory).propose(REQUEST) == first
    assert total(directory).calls == 2, "both were paid for"


def test_a_broken_reply_on_disk_is_asked_for_again(tmp_path: Path) -> None:
    with ScriptedEndpoint(lambda _: Said(content=said(GOOD))) as endpoint:
        directory = search_directory(tmp_path / "search", config(endpoint.url))
        expected = agents(directory).propose(REQUEST)
        [call] = CallLog(directory).calls(1)
        path = call.folder / "reply_1.json"
        data = json.loads(path.read_text())
        for broken in ("", "{}", json.dumps(data)[:50], json.dumps({**data, "dollars": "many"})):
            path.write_text(broken)
            for other in call.folder.glob("reply_1_*.json"):
                other.unlink()
            assert agents(directory).propose(REQUEST) == expected
        assert len(endpoint.asked) == 5
