"""Decoding with merged weights: what rollouts and validation sample from where there is no vLLM.

`generate` of transformers spends most of a small model's time around the model: adapters that are not merged, a
prefill for every copy of a prompt, rows that ended long ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from llmzero_hpc.trainers.decoding import Responses, Sampling, respond

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    """Responses of a model of transformers, as `respond` draws them."""
    responses: Responses = respond(
        _Cached(model),
        prompts,
        copies=copies,
        limit=limit,
        end_tokens=end_tokens,
        padding=padding,
        sampling=sampling,
        device=model.device,
    )
    return responses.lists()


class _Cached:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)

    def read(self, tokens: Any, mask: Any, copies: int) -> Any:
        logits = self._forward(tokens, mask, (mask.cumsum(-1) - 1).clamp(min=0))
        if copies > 1:
            self._cache.batch_repeat_interleave(copies)
            logits, mask = logits.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
        self._mask, self._positions = mask, mask.sum(-1, keepdim=True)
        return logits

    def advance(self, tokens: Any) -> Any:
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(self._mask), 1))], 1)
        logits = self._forward(tokens[:, None], self._mask, self._positions)
        self._positions = self._positions + 1
        return logits

    def keep(self, rows: Any) -> None:
        self._cache.batch_select_indices(rows)
        self._mask, self._positions = self._mask[rows], self._positions[rows]

    def _forward(self, tokens: Any, mask: Any, positions: Any) -> Any:
        return self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
