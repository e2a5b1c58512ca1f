"""Agents that ask a model: what they make of its replies, and who answers when it does not."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from model_samples import KEY, agents, analyzer_reply, config, proposer_reply, said, search_directory, stopper_reply
from playbook_samples import failure_request, proposal_request, stop_request, validations
from scripted_endpoint import Asked, Said, ScriptedEndpoint, refusal

from llmzero_hpc import shipped
from llmzero_hpc.agents.base import AgentUnavailableError
from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.agents.registry import check_agents, make_agents
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.search.node import TransitionKind
from llmzero_hpc.store.agent_calls import CallLog

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.store.search_directory import SearchDirectory

REQUEST = replace(proposal_request(validations([0.3, 0.4, 0.5, 0.6], every=15)), child=1)
FALLING = stop_request([0.30, 0.29, 0.28, 0.27], [0.5, 0.6, 0.7, 0.8])
FAILED = replace(failure_request("CUDA out of memory"), child=3)


def always(reply: object, **parts: object) -> ScriptedEndpoint:
    content = reply if isinstance(reply, str) else said(reply)
    return ScriptedEndpoint(lambda _: Said(content=content, **parts))  # type: ignore[arg-type]


def search(tmp_path: Path, endpoint: ScriptedEndpoint, **changes: object) -> SearchDirectory:
    return search_directory(tmp_path / "search", config(endpoint.url, **changes))


def test_a_proposal_is_taken_as_it_is(tmp_path: Path) -> None:
    with always(proposer_reply()) as endpoint:
        answer = agents(search(tmp_path, endpoint)).propose(REQUEST)
    assert answer.resume_step == 60
    assert REQUEST.parent.configuration is not None
    changes = REQUEST.parent.configuration.differences(answer.configuration)
    assert changes == {"learning_rate": (5e-5, 3e-5), "epochs": (3.0, 1.0)}
    assert answer.rationale.author == "tiny"
    assert answer.rationale.evidence == (
        "val_score, steps 5 to 60: last 0.6; still rising",
        "learning_rate: 5e-05 to 3e-05 (go slower)",
        "epochs: 3 to 1",
        "resumes from step 60",
    )
    assert len(endpoint.asked) == 1
    schema = endpoint.asked[0].body["response_format"]["json_schema"]["schema"]
    assert set(schema["properties"]) == set(proposer_reply())


def test_a_call_is_kept_whole_and_private(tmp_path: Path) -> None:
    with always(proposer_reply()) as endpoint:
        directory = search(tmp_path, endpoint)
        agents(directory).propose(REQUEST)
    [call] = CallLog(directory).calls(1)
    request, reply = call.request(1), call.reply(1)
    assert request is not None
    assert reply is not None
    assert endpoint.asked[0].body["messages"][1]["content"] == request.user
    assert (request.agent, request.model, request.structured) == ("proposer", "tiny", True)
    assert (reply.model, reply.finish_reason, json.loads(reply.content)) == ("tiny-0613", "stop", proposer_reply())
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (1000, 100)
    assert reply.dollars == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
    outcome = json.loads((call.folder / "outcome.json").read_text())
    assert outcome["problems"] == []
    assert outcome["parsed"]["resume_step"] == 60
    for path in (call.folder.parent, *call.folder.parent.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"


def test_the_same_question_is_answered_from_disk(tmp_path: Path) -> None:
    with always(proposer_reply()) as endpoint:
        directory = search(tmp_path, endpoint)
        first = agents(directory).propose(REQUEST)
        again = agents(directory)
        assert again.propose(REQUEST) == first
        assert again.propose(replace(REQUEST, iterations_left=3)) == first
        assert len(endpoint.asked) == 2, "another question is asked"
        assert again.spending().dollars == pytest.approx(2 * 0.003)


def test_what_is_wrong_goes_back_once(tmp_path: Path) -> None:
    script = [proposer_reply(resume_step=61), proposer_reply()]
    with ScriptedEndpoint(lambda asked: Said(content=said(script[asked.number - 1]))) as endpoint:
        directory = search(tmp_path, endpoint)
        answer = agents(directory).propose(REQUEST)
    assert answer.rationale.author == "tiny"
    roles = [message["role"] for message in endpoint.asked[1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert "step 61 is not a checkpoint of node 0" in endpoint.asked[1].body["messages"][3]["content"]
    assert agents(directory).propose(REQUEST) == answer
    assert len(endpoint.asked) == 2


def test_after_two_unusable_replies_the_playbook_decides(tmp_path: Path) -> None:
    with always("I would rather not.") as endpoint:
        directory = search(tmp_path, endpoint, agents={"fallback": "wait"})
        model = agents(directory)
        answer = model.propose(REQUEST)
        assert len(endpoint.asked) == 2
        assert model.propose(REQUEST) == answer
        assert len(endpoint.asked) == 2, "unusable replies are not paid for again"
    expected = Playbook().propose(REQUEST)
    assert answer.configuration == expected.configuration
    assert answer.rationale.author == "playbook"
    assert "there is no JSON object in the reply" in answer.rationale.diagnosis
    assert "tiny" in answer.rationale.diagnosis


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"finish_reason": "length"}, "cut off at the limit"),
        ({"finish_reason": "content_filter"}, "filter"),
        ({"finish_reason": "tool_calls"}, "no tools"),
        ({"finish_reason": None}, "did not come to its end"),
        ({"message": {"refusal": "I would rather not."}}, "declined"),
    ],
)
def test_a_reply_that_did_not_end_well_is_not_read(parts: dict[str, object], words: str, tmp_path: Path) -> None:
    with always(stopper_reply(FALLING), **parts) as endpoint:
        answer = agents(search(tmp_path, endpoint)).judge(FALLING)
    assert not answer.stop, "whatever it holds"
    assert words in endpoint.asked[1].text


BAD_PROPOSALS = {
    "learning_rate: 1 is above 0.1": proposer_reply(changes=[{"name": "learning_rate", "value": 1.0, "why": ""}]),
    "lora_rank is fixed in a strategy": proposer_reply(changes=[{"name": "lora_rank", "value": 8, "why": ""}]),
    "rollouts: '8' is not of type int": proposer_reply(changes=[{"name": "rollouts", "value": "8", "why": ""}]),
    "rollouts: True is not of type int": proposer_reply(changes=[{"name": "rollouts", "value": True, "why": ""}]),
    "rollouts: 8.5 is not of type int": proposer_reply(changes=[{"name": "rollouts", "value": 8.5, "why": ""}]),
    "rollouts: it is changed twice": proposer_reply(changes=[{"name": "rollouts", "value": 4, "why": ""}] * 2),
    "changes.0.name": proposer_reply(changes=[{"name": "output_dir", "value": "x", "why": ""}]),
    "changes.0.value": proposer_reply(changes=[{"name": "target_modules", "value": "$(reboot)", "why": ""}]),
    "mini_batches: 7 does not divide": proposer_reply(changes=[{"name": "mini_batches", "value": 7, "why": ""}]),
    "step None is not a checkpoint": proposer_reply(resume_step=None),
    "epochs: 900 make": proposer_reply(epochs=900),
    "epochs: Input should be less than or equal to 1000": proposer_reply(epochs=1e6),
    "epochs: they have a key of their own": proposer_reply(changes=[{"name": "epochs", "value": 2.0, "why": ""}]),
    "overrides.0.key": proposer_reply(overrides=[{"key": "trainer/../../etc", "value": 1}]),
    "overrides.0.value": proposer_reply(overrides=[{"key": "path", "value": "/etc/passwd"}]),
}


@pytest.mark.parametrize("problem", BAD_PROPOSALS)
def test_a_proposal_that_is_not_allowed_changes_nothing(problem: str, tmp_path: Path) -> None:
    with always(BAD_PROPOSALS[problem]) as endpoint:
        answer = agents(search(tmp_path, endpoint)).propose(REQUEST)
    assert problem in endpoint.asked[1].text
    assert answer.rationale.author == "playbook"
    assert answer.configuration == Playbook().propose(REQUEST).configuration


def test_only_keys_that_the_trainer_knows_may_be_set(tmp_path: Path) -> None:
    reply = proposer_reply(overrides=[{"key": "top_p", "value": 0.9}])
    with always(reply) as endpoint:
        rehearsed = make_agents(config(endpoint.url), search(tmp_path / "rehearsed", endpoint)).propose(REQUEST)
        trl = search(tmp_path / "trl", endpoint, trainer="trl", model="builtin:chains")
        trained = make_agents(trl.record.config, trl).propose(REQUEST)
    assert "overrides.top_p: the rehearsal trainer has no further keys" in rehearsed.rationale.diagnosis
    assert trained.configuration.overrides == {"top_p": 0.9}
    with always(proposer_reply(overrides=[{"key": "output_dir", "value": "x"}])) as endpoint:
        trl = search(tmp_path / "evil", endpoint, trainer="trl", model="builtin:chains")
        assert make_agents(trl.record.config, trl).propose(REQUEST).rationale.author == "playbook"


def test_a_scratch_phase_resumes_nothing(tmp_path: Path) -> None:
    request = replace(REQUEST, kind=TransitionKind.SCRATCH, checkpoints=())
    with always(proposer_reply(resume_step=None, changes=[{"name": "lora_rank", "value": 16, "why": ""}])) as endpoint:
        answer = agents(search(tmp_path / "fresh", endpoint)).propose(request)
    assert (answer.resume_step, answer.configuration.lora_rank) == (None, 16)
    with always(proposer_reply(resume_step=60)) as endpoint:
        assert agents(search(tmp_path / "resumed", endpoint)).propose(request).rationale.author == "playbook"


def test_a_stop_needs_scores_that_are_there(tmp_path: Path) -> None:
    with always(stopper_reply(FALLING)) as endpoint:
        answer = agents(search(tmp_path / "cited", endpoint)).judge(FALLING)
    assert answer.stop
    assert answer.author == "tiny"
    assert "0.3 at step 10, 0.29 at step 20" in answer.reason
    invented = stopper_reply(validation_scores=[{"step": 10, "score": 0.1}, {"step": 20, "score": 0.1}])
    elsewhere = stopper_reply(validation_scores=[{"step": 11, "score": 0.3}, {"step": 21, "score": 0.29}])
    single = stopper_reply(validation_scores=[{"step": 10, "score": 0.3}] * 5)
    for number, reply in enumerate([stopper_reply(), invented, elsewhere, single, stopper_reply(FALLING, reason="")]):
        with always(reply) as endpoint:
            answer = agents(search(tmp_path / str(number), endpoint)).judge(FALLING)
        assert not answer.stop, reply
        assert len(endpoint.asked) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize("fallback", ["playbook", "wait"])
def test_whatever_keeps_a_judgement_away_the_phase_continues(tmp_path: Path, status: int, fallback: str) -> None:
    with ScriptedEndpoint(lambda _: refusal(status, "no")) as endpoint:
        directory = search(tmp_path, endpoint, agents={"max_retries": 0, "fallback": fallback})
        answer = agents(directory).judge(FALLING)
    assert not answer.stop
    assert str(status) in answer.reason


def test_a_repair_of_the_configuration(tmp_path: Path) -> None:
    with always(analyzer_reply()) as endpoint:
        answer = agents(search(tmp_path, endpoint)).repair(FAILED)
    assert answer.configuration.batch_size == 64
    assert answer.rationale.evidence == ("verdict: configuration", "batch_size: 128 to 64 (half the memory)")


def test_a_failure_of_the_infrastructure_keeps_the_configuration(tmp_path: Path) -> None:
    with always(analyzer_reply(verdict="infrastructure")) as endpoint:
        answer = agents(search(tmp_path, endpoint)).repair(FAILED)
    assert answer.configuration == FAILED.node.configuration
    assert answer.rationale.author == "tiny"


def test_a_repair_that_changes_nothing_is_none(tmp_path: Path) -> None:
    with always(analyzer_reply(changes=[])) as endpoint:
        answer = agents(search(tmp_path, endpoint)).repair(FAILED)
    assert "this is the configuration of node 2, which failed" in endpoint.asked[1].text
    assert answer.rationale.author == "playbook"
    assert answer.configuration == Playbook().repair(FAILED).configuration


@pytest.mark.parametrize("agent", ["proposer", "early_stopper", "error_analyzer"])
def test_the_playbook_may_play_any_one_of_them(agent: str, tmp_path: Path) -> None:
    def script(asked: Asked) -> Said:
        reply = next(
            reply
            for reply in (proposer_reply(), stopper_reply(FALLING), analyzer_reply())
            if set(reply) == asked.properties
        )
        return Said(content=said(reply))

    with ScriptedEndpoint(script) as endpoint:
        model = agents(search(tmp_path, endpoint, agents={agent: "playbook"}))
        authors = {
            "proposer": model.propose(REQUEST).rationale.author,
            "early_stopper": model.judge(FALLING).author,
            "error_analyzer": model.repair(FAILED).rationale.author,
        }
    assert authors == {name: "playbook" if name == agent else "tiny" for name in authors}


def test_who_is_down_is_waited_for_or_stood_in_for(tmp_path: Path) -> None:
    with ScriptedEndpoint(lambda _: refusal(503, "loading")) as endpoint:
        waiting = agents(search(tmp_path / "wait", endpoint, agents={"max_retries": 1, "fallback": "wait"}))
        with pytest.raises(AgentUnavailableError, match="in trouble"):
            waiting.propose(REQUEST)
        with pytest.raises(AgentUnavailableError, match="in trouble"):
            waiting.repair(FAILED)
        standing_in = agents(search(tmp_path / "playbook", endpoint, agents={"max_retries": 1}))
        assert standing_in.propose(REQUEST).rationale.author == "playbook"
        assert standing_in.repair(FAILED).rationale.author == "playbook"


def test_caps_are_never_broken(tmp_path: Path) -> None:
    with always(proposer_reply()) as endpoint:
        caps = {"budget": {"api_dollars": 0.1}, "agents": {"max_output_tokens": 1000}}
        directory = search(tmp_path / "money", endpoint, **caps)
        model = agents(directory)
        answers = [model.propose(replace(REQUEST, iterations_left=left)) for left in range(40)]
        assert model.spending().dollars <= 0.1
        assert answers[-1].rationale.author == "playbook"
        assert "for language models are spent" in answers[-1].rationale.diagnosis
        asked = len(endpoint.asked)
        assert 5 < asked < 40
        assert agents(directory).propose(replace(REQUEST, iterations_left=99)).rationale.author == "playbook"
        assert len(endpoint.asked) == asked, "what was spent before a restart counts"
    with always(proposer_reply()) as endpoint:
        model = agents(search(tmp_path / "calls", endpoint, agents={"max_calls": 3, "fallback": "wait"}))
        for left in range(3):
            assert model.propose(replace(REQUEST, iterations_left=left)).rationale.author == "tiny"
        with pytest.raises(AgentUnavailableError, match="all 3 calls"):
            model.propose(replace(REQUEST, iterations_left=3))


def test_spending_is_told_by_node_and_agent(tmp_path: Path) -> None:
    script = [proposer_reply(resume_step=61), proposer_reply()]
    with ScriptedEndpoint(lambda asked: Said(content=said(script[asked.number - 1]))) as endpoint:
        directory = search(tmp_path, endpoint)
        agents(directory).propose(REQUEST)
    with always("no", usage=None) as endpoint:
        directory2 = search(tmp_path / "other", endpoint)
        agents(directory2).judge(FALLING)
    spending = CallLog(directory).spending()
    assert set(spending) == {(1, "proposer")}
    assert (spending[1, "proposer"].calls, spending[1, "proposer"].input_tokens) == (2, 2000)
    assert spending[1, "proposer"].dollars == pytest.approx(0.006)
    guessed = CallLog(directory2).spending()[3, "early_stopper"]
    assert guessed.dollars > 0, "an endpoint that does not count is not free"


def test_pictures_are_sent_and_kept(tmp_path: Path) -> None:
    with always(proposer_reply()) as endpoint:
        directory = search(tmp_path, endpoint, agents={"vision": True})
        agents(directory).propose(REQUEST)
    [asked] = endpoint.asked
    assert asked.images
    [call] = CallLog(directory).calls(1)
    request = call.request(1)
    assert request is not None
    assert len(request.images) == len(asked.images)
    for name, url in zip(request.images, asked.images, strict=True):
        png = (call.folder / name).read_bytes()
        assert png.startswith(b"\x89PNG")
        assert url == f"data:image/png;base64,{base64.b64encode(png).decode()}"


def test_a_model_that_does_not_see_is_shown_text_only(tmp_path: Path) -> None:
    def script(asked: Asked) -> Said:
        return refusal(400, "tiny is not a multimodal model") if asked.images else Said(content=said(proposer_reply()))

    with ScriptedEndpoint(script) as endpoint:
        directory = search(tmp_path, endpoint, agents={"vision": True})
        model = agents(directory)
        assert model.propose(REQUEST).rationale.author == "tiny"
        assert model.propose(replace(REQUEST, iterations_left=1)).rationale.author == "tiny"
        assert [bool(asked.images) for asked in endpoint.asked] == [True, False, False], "learnt once"
        assert agents(directory).propose(REQUEST).rationale.author == "tiny"
        assert len(endpoint.asked) == 3, "found on disk, however it was asked"


def test_a_server_that_fails_on_schemas_is_asked_in_words(tmp_path: Path) -> None:
    def script(asked: Asked) -> Said:
        if asked.properties:
            return Said(status=500, error="Internal Server Error")
        return Said(content=f"Well: {said(proposer_reply())}")

    with ScriptedEndpoint(script) as endpoint:
        model = agents(search(tmp_path, endpoint, agents={"max_retries": 1}))
        assert model.propose(REQUEST).rationale.author == "tiny"
        assert model.propose(replace(REQUEST, iterations_left=1)).rationale.author == "tiny"
    assert [bool(asked.properties) for asked in endpoint.asked] == [True, True, False, False]


def test_what_a_server_does_not_lack_is_not_forgotten(tmp_path: Path) -> None:
    refusals = [refusal(400, "bad request")] * 2

    def script(asked: Asked) -> Said:
        return refusals.pop() if refusals else Said(content=said(proposer_reply()))

    with ScriptedEndpoint(script) as endpoint:
        model = agents(search(tmp_path, endpoint))
        assert model.propose(REQUEST).rationale.author == "playbook", "the request itself was bad"
        assert model.propose(replace(REQUEST, iterations_left=1)).rationale.author == "tiny"
    assert [bool(asked.properties) for asked in endpoint.asked] == [True, False, True]


def test_a_key_that_strayed_into_a_log_is_shown_to_nobody(tmp_path: Path) -> None:
    with always(analyzer_reply(why=f"The log shows {KEY}.")) as endpoint:
        directory = search(tmp_path, endpoint)
        answer = agents(directory).repair(replace(FAILED, log_tail=f"KeyError: {KEY}"))
    assert answer.rationale.diagnosis == "The log shows ***."
    assert KEY not in endpoint.asked[0].text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_own_prompts_are_sent_and_wrong_ones_found_before_a_search_begins(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    template = mine / "early_stopper" / "user.md"
    template.parent.mkdir(parents=True)
    own = shipped.path("prompts", "early_stopper/user.md").read_text() + "\nIn the words of this laboratory.\n"
    template.write_text(own)
    with always(stopper_reply(FALLING)) as endpoint:
        settings = config(endpoint.url, agents={"prompts": mine})
        check_agents(settings)
        assert agents(search_directory(tmp_path / "search", settings)).judge(FALLING).stop
    assert "In the words of this laboratory." in endpoint.asked[0].text
    template.write_text("{{ test_score }}")
    with pytest.raises(ConfigurationError, match="test_score"):
        check_agents(settings)
