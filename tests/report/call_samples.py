"""A search whose agents are a language model, with a log of calls of every ending."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import report_samples as samples

from llmzero_hpc.search.node import Rationale
from llmzero_hpc.sections import LanguageModelAgents, Prices
from llmzero_hpc.store.agent_calls import CallFailure, CallLog, CallReply, CallRequest, Usage
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.tree import Tree

MODEL = "tiny"
PNG = b"\x89PNG"
ASKED = samples.CREATED_AT + 60
CITED = (
    "val_score, steps 10 to 50: last 0.568; still rising",
    "kl, steps 40 to 50: highest 0.9; runs away",
    "reward_std, steps 1 to 50: mean 0.2; noisy",
    "learning_rate: 0.001 to 0.0005 (go slower)",
)
"""Of node 1, whose parent is node 0: right, wrong, without data, and no citation."""
ANSWER = {
    "diagnosis": "Responses are cut off.",
    "observations": [{"metric": "kl", "value": 0.9}],
    "changes": [],
    "resume_step": None,
}


def settings(*, priced: bool = True) -> LanguageModelAgents:
    prices = Prices(input=2.0, output=10.0) if priced else None
    return LanguageModelAgents(base_url="https://api.example.org/v1", model=MODEL, prices=prices)


def tree() -> Tree:
    """The finished one; nodes 1 and 2 were asked of the model, which proposed node 1 alone."""
    grown = samples.finished_tree()
    first, second = grown[1], grown[2]
    instead = "Instead of tiny (the reply has no JSON object): Entropy has collapsed."
    return grown.replacing(
        replace(first, rationale=Rationale(MODEL, "Responses are cut off.", CITED)),
        replace(second, rationale=Rationale("playbook", instead, ("entropy fell to 0.1",), "entropy_collapse")),
    )


def request(agent: str, user: str, images: tuple[str, ...] = (), at: float = ASKED) -> CallRequest:
    return CallRequest(
        agent, MODEL, "https://api.example.org/v1", at, "You are an agent.\n", user, images, structured=True
    )


def reply(content: str, finish_reason: str = "stop", at: float = ASKED, **usage: int) -> CallReply:
    tokens = {"input_tokens": 9000, "output_tokens": 500} | usage
    return CallReply("tiny-2026", content, finish_reason, Usage(**tokens), 0.023, at, 12.0)


def directory(root: Path, *, priced: bool = True) -> SearchDirectory:
    """Node 1: a proposal in two rounds. Node 2: a proposal that was never usable. Node 3: two judgements."""
    config = samples.config(agents=settings(priced=priced))
    search = SearchDirectory.create(root, SearchRecord.new(config, 4096, samples.CREATED_AT))
    search.write_tree(tree())
    log = CallLog(search)

    good = log.call(1, "proposer", "aaaa")
    good.ask(1, request("proposer", "# What next?\n\nNode 0 ended.", ("curves_1.png",)), {"curves_1.png": PNG})
    good.answer(1, reply('{"diagnosis": "Too \x1b[31mshort', "length", cached_tokens=4000, image_tokens=1500))
    why = "That reply cannot be used:\n- the reply was cut off\n- think less\nReply once more."
    good.ask(2, request("proposer", why, at=ASKED + 12), {})
    good.answer(2, reply(json.dumps(ANSWER), at=ASKED + 12))
    good.conclude(ANSWER, ())

    bad = log.call(2, "proposer", "bbbb")
    bad.ask(1, request("proposer", "# What next?"), {})
    bad.answer(1, reply("I would rather not.\nTry [bold]tomorrow[/bold]."))
    bad.conclude(None, ["the reply has no JSON object"])

    judged = log.call(3, "early_stopper", "cccc")
    judged.ask(1, request("early_stopper", "CONTINUE or STOP?"), {})
    judged.answer(1, reply('{"reason": "Behind.", "validation_scores": [], "decision": "STOP"}'))
    judged.conclude({"reason": "Behind.", "validation_scores": [], "decision": "STOP"}, ())
    down = log.call(3, "early_stopper", "dddd")
    down.ask(1, request("early_stopper", "CONTINUE or STOP?", at=ASKED + 900), {})
    down.fail(CallFailure(ASKED + 901, 1.0, "connection refused"))
    return search
