"""Decoding in a batch that shrinks: what every trainer without vLLM samples with.

A prompt is read once however many responses it gets, and a row that has ended leaves the batch, so that long responses
cost what they are long. The distribution is the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = Any
"""A `torch.Tensor`, whose operations are not typed well enough to check."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: greedily where `temperature` is 0. The rest are TRL's options of the same names."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0


class CachedModel(Protocol):
    """A model with a cache of what it has read; all methods return or take one row for each live response."""

    def read(self, tokens: Tensor, mask: Tensor, copies: int) -> Tensor:
        """Logits after prompts that are padded on the left, each repeated `copies` times."""

    def advance(self, tokens: Tensor) -> Tensor:
        """Logits after one more token in each row."""

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""


@dataclass(frozen=True, slots=True)
class Responses:
    """What was drawn.

    Attributes:
        tokens: one row for each response, the end token included; what follows it is padding.
        lengths: tokens of each.
        logps: logarithm of the probability with which each token was drawn; 0 for greedy ones.
    """

    tokens: Tensor
    lengths: Tensor
    logps: Tensor

    def lists(self) -> list[list[int]]:
        """The tokens without padding."""
        rows: list[list[int]] = self.tokens.tolist()
        return [row[:length] for row, length in zip(rows, self.lengths.tolist(), strict=True)]


@torch.inference_mode()  # type: ignore[untyped-decorator]
def respond(
    model: CachedModel,
    prompts: Sequence[Sequence[int]],
    *,
    copies: int = 1,
    limit: int,
    end_tokens: Sequence[int],
    padding: int,
    sampling: Sampling,
    device: Any = "cpu",
) -> Responses:
    """Responses to each prompt, `copies` in a row; each ends with an end token, or is cut off at `limit` tokens.

    Draws from torch's global random state.
    """
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), padding)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    logits = model.read(tokens.to(device), mask.to(device), copies)
    rows = len(prompts) * copies
    ends = torch.tensor(list(end_tokens), device=device)
    alive = torch.arange(rows, device=device)
    drawn = torch.full((rows, limit), padding, device=device)
    logps = torch.zeros((rows, limit), device=device)
    lengths = torch.full((rows,), limit, device=device)
    for number in range(limit):
        chosen, logp = _draw(logits, sampling)
        drawn[alive, number] = chosen
        logps[alive, number] = logp
        if number == limit - 1:
            break
        going = ~torch.isin(chosen, ends)
        if not bool(going.all()):
            lengths[alive[~going]] = number + 1
            alive = alive[going]
            if not len(alive):
                break
            model.keep(going.nonzero().squeeze(1))
            chosen = chosen[going]
        logits = model.advance(chosen)
    return Responses(drawn, lengths, logps)


def _draw(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    if sampling.temperature == 0:
        return logits.argmax(-1), logits.new_zeros(len(logits))
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        shares = ordered.softmax(-1)
        outside = (shares.cumsum(-1) - shares) >= sampling.top_p
        logits = logits.masked_fill(outside.scatter(1, order, outside), -torch.inf)
    shares = logits.softmax(-1)
    chosen = torch.multinomial(shares, 1)
    return chosen.squeeze(1), shares.gather(1, chosen).log().squeeze(1)
