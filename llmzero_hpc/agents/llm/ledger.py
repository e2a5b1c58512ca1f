"""What calls cost, what they may cost before they are made, and the caps that no call may break."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.agents.llm.failures import CapReachedError
from llmzero_hpc.store.agent_calls import CallReply, Spending, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmzero_hpc.sections import LanguageModelAgents, Prices

_MILLION = 1e6
_LEAST_CHARACTERS = 2
"""Characters of a token, at least: what is asked before a call must not be less than what it costs after."""
_LIKELY_CHARACTERS = 4
_IMAGE_TOKENS = 2000
"""Tokens of one plot, at most, with the usual vision models."""
TYPICAL = {"proposer": (6000, 4, 2000), "early_stopper": (2700, 2, 400), "error_analyzer": (6000, 0, 1200)}
"""Text tokens, images, and reply tokens of a call of each agent, rather too many than too few."""
_FIRST_CONTEXT, _GROWTH_A_REPLY, _REPLY, _REPLIES_AN_EVENT = 7500, 1500, 700, 2
"""Tokens of the skill agent's system text with its tools; by how many its conversation grows with a reply; of a reply;
and replies to a phase that ended or is looked at."""


def dollars(usage: Usage, prices: Prices | None) -> float:
    """The price of a reply; 0 without prices."""
    if prices is None:
        return 0.0
    cached = min(usage.cached_tokens, usage.input_tokens)
    images = min(usage.image_tokens, usage.input_tokens - cached)
    text = usage.input_tokens - cached - images
    parts = (
        (text, prices.input),
        (cached, prices.input if prices.cached_input is None else prices.cached_input),
        (images, prices.input if prices.image is None else prices.image),
        (usage.output_tokens, prices.output),
    )
    return sum(tokens * price for tokens, price in parts) / _MILLION


def guessed(prompt_characters: int, images: int, reply_characters: int) -> Usage:
    """The tokens of a reply whose endpoint did not count them."""
    return Usage(
        input_tokens=prompt_characters // _LIKELY_CHARACTERS + images * _IMAGE_TOKENS // 2,
        output_tokens=reply_characters // _LIKELY_CHARACTERS,
        estimated=True,
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a search's calls are likely to cost; `dollars` is None without prices."""

    calls: int
    input_tokens: int
    output_tokens: int
    dollars: float | None


def estimate(settings: LanguageModelAgents, proposals: int, judgements: int, repairs: int) -> Estimate:
    """For people, before a search starts, from typical prompts; agents that the playbook plays cost nothing."""
    counts = {"proposer": proposals, "early_stopper": judgements, "error_analyzer": repairs}
    calls = input_tokens = output_tokens = 0
    for agent, count in counts.items():
        if getattr(settings, agent) == "llm":
            text, images, reply = TYPICAL[agent]
            calls += count
            input_tokens += count * (text + (images * _IMAGE_TOKENS if settings.vision else 0))
            output_tokens += count * reply
    return _estimated(settings, calls, input_tokens, output_tokens)


def estimate_conversation(settings: LanguageModelAgents, events: int) -> Estimate:
    """The same for the skill agent: with each call the whole conversation before it is paid for once more."""
    calls = _REPLIES_AN_EVENT * events
    input_tokens = calls * _FIRST_CONTEXT + _GROWTH_A_REPLY * calls * (calls - 1) // 2
    return _estimated(settings, calls, input_tokens, calls * _REPLY)


def _estimated(settings: LanguageModelAgents, calls: int, input_tokens: int, output_tokens: int) -> Estimate:
    cost = None if settings.prices is None else dollars(Usage(input_tokens, output_tokens), settings.prices)
    return Estimate(calls, input_tokens, output_tokens, cost)


class Ledger:
    """Running totals of a search. Safe from several threads.

    Args:
        settings: prices and the cap on calls.
        api_dollars: the cap on money; None is none.
        known: what was spent before this process began.
    """

    def __init__(
        self, settings: LanguageModelAgents, api_dollars: float | None, known: Mapping[tuple[int, str], Spending]
    ) -> None:
        self._settings = settings
        self._api_dollars = api_dollars
        self._lock = threading.Lock()
        self._entries = dict(known)
        self._reserved_dollars = 0.0
        self._reserved_calls = 0

    def spending(self) -> Spending:
        """Of the whole search."""
        with self._lock:
            return self._total()

    def entries(self) -> dict[tuple[int, str], Spending]:
        """What each agent cost for each node."""
        with self._lock:
            return dict(self._entries)

    def add(self, node: int, agent: str, reply: CallReply) -> None:
        """Count a reply that came."""
        with self._lock:
            self._entries[node, agent] = self._entries.get((node, agent), Spending()) + Spending.of(reply)

    @contextmanager
    def reserved(self, characters: int, images: int) -> Iterator[None]:
        """Sets aside, while a call is made, the most that it may cost.

        Args:
            characters: of the texts that are sent.
            images: how many are sent.

        Raises:
            CapReachedError: that is more than is left.
        """
        most = Usage(characters // _LEAST_CHARACTERS + images * _IMAGE_TOKENS, self._settings.max_output_tokens)
        cost = dollars(most, self._settings.prices)
        with self._lock:
            self._check(cost)
            self._reserved_dollars += cost
            self._reserved_calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._reserved_dollars -= cost
                self._reserved_calls -= 1

    def _check(self, cost: float) -> None:
        total = self._total()
        cap, calls = self._api_dollars, self._settings.max_calls
        if cap is not None and total.dollars + self._reserved_dollars + cost > cap:
            raise CapReachedError(
                f"${total.dollars:.2f} of ${cap:.2f} for language models are spent, and a call may cost ${cost:.2f}"
            )
        if calls is not None and total.calls + self._reserved_calls >= calls:
            raise CapReachedError(f"all {calls} calls of language models are used")

    def _total(self) -> Spending:
        return sum(self._entries.values(), start=Spending())
