"""Decoding with merged weights: what rollouts and validation sample from where there is no vLLM.

`generate` of transformers spends most of a small model's time around the model: adapters that are not merged, a
prefill for every copy of a prompt, rows that ended long ago. Here a prompt is read once, and a row that has ended
leaves the batch. The distribution is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: greedily where `temperature` is 0. The rest are TRL's options of the same names."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0


class MergedPolicy:
    """A copy of the base model whose weights are refreshed to base plus adapter.

    The adapter is never merged in place: unmerging does not give back the same bits, and the base would drift.

    Args:
        copy: a second instance of the base model, without adapters; it belongs to this object from now on.
    """

    def __init__(self, copy: Any) -> None:
        self.model = copy.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def refresh(self, adapted: Any) -> None:
        """Take over the weights of a PEFT model of the same base."""
        for name, module in adapted.get_base_model().named_modules():
            if not hasattr(module, "get_delta_weight"):
                continue
            weight = module.get_base_layer().weight + module.get_delta_weight("default")
            self.model.get_submodule(name).weight.copy_(weight)


@torch.inference_mode()  # type: ignore[untyped-decorator]
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    copies: int = 1,
    limit: int,
    end_tokens: Sequence[int],
    padding: int,
    sampling: Sampling,
) -> list[list[int]]:
    """Responses to each prompt, `copies` in a row; each ends with an end token, or is cut off at `limit` tokens.

    Draws from torch's global random state.
    """
    device = model.device
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), padding)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    tokens, mask = tokens.to(device), mask.to(device)
    cache = DynamicCache(config=model.config)
    logits = _forward(model, tokens, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)
    if copies > 1:
        cache.batch_repeat_interleave(copies)
        logits, mask = logits.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
    positions = mask.sum(-1, keepdim=True)
    ends = torch.tensor(list(end_tokens), device=device)
    alive = torch.arange(len(mask), device=device)
    drawn = torch.full((len(mask), limit), padding, device=device)
    lengths = torch.full((len(mask),), limit, device=device)
    for number in range(limit):
        chosen = _draw(logits, sampling)
        drawn[alive, number] = chosen
        if number == limit - 1:
            break
        going = ~torch.isin(chosen, ends)
        if not bool(going.all()):
            lengths[alive[~going]] = number + 1
            alive = alive[going]
            if not len(alive):
                break
            kept = going.nonzero().squeeze(1)
            cache.batch_select_indices(kept)
            chosen, mask, positions = chosen[kept], mask[kept], positions[kept]
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], 1)
        logits = _forward(model, chosen[:, None], mask, positions, cache)
        positions = positions + 1
    return [row[:length] for row, length in zip(drawn.tolist(), lengths.tolist(), strict=True)]


def _forward(model: Any, tokens: Any, mask: Any, positions: Any, cache: Any) -> Any:
    return model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]


def _draw(logits: Any, sampling: Sampling) -> Any:
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        shares = ordered.softmax(-1)
        outside = (shares.cumsum(-1) - shares) >= sampling.top_p
        logits = logits.masked_fill(outside.scatter(1, order, outside), -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1).squeeze(1)
