"""Decoding with merged weights draws from the same distribution as the model that is trained."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.task import ChainArithmetic
from llmzero_hpc.trainers.decoding import Sampling
from llmzero_hpc.trainers.trl.generation import MergedPolicy, decode
from llmzero_hpc.trainers.trl.model import load_tokenizer, prompt_tokens, with_adapter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.trainers.base import PhaseSpec

END, PADDING = 1, 0


@pytest.fixture
def prompts(model_folder: Path) -> list[list[int]]:
    return prompt_tokens(load_tokenizer(model_folder), ChainArithmetic().rows(Split.TRAIN)[:24])


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def talkative(folder: Path) -> Any:
    """The policy with more varied responses: some end at once, some late, some never."""
    model = loaded(folder)
    with torch.no_grad():
        torch.manual_seed(5)
        model.model.embed_tokens.weight += torch.randn_like(model.model.embed_tokens.weight) * 0.05
    return model


def test_greedy_responses_are_those_of_transformers(model_folder: Path, prompts: list[list[int]]) -> None:
    model = talkative(model_folder)
    free = decode(model, prompts, limit=12, end_tokens=[END], padding=PADDING, sampling=Sampling(0))
    places = {token: {row.index(token) for row in free if token in row} for row in free for token in row}
    ends = [END, max(places, key=lambda token: len(places[token]))]
    ours = decode(model, prompts, limit=12, end_tokens=ends, padding=PADDING, sampling=Sampling(0))
    config = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=ends, pad_token_id=PADDING)
    for prompt, response in zip(prompts, ours, strict=True):
        theirs = model.generate(torch.tensor([prompt]), generation_config=config)[0, len(prompt) :].tolist()
        assert response == theirs
    lengths = {len(response) for response in ours}
    assert len(lengths) > 2, "rows have to leave the batch at different times for this test to say anything"


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7), Sampling(1.0, top_k=3), Sampling(1.0, top_p=0.6)])
def test_samples_follow_the_model(model_folder: Path, prompts: list[list[int]], sampling: Sampling) -> None:
    model = talkative(model_folder)
    torch.manual_seed(3)
    drawn = decode(model, prompts[:2], copies=6000, limit=2, end_tokens=[END, 8], padding=PADDING, sampling=sampling)
    for number, prompt in enumerate(prompts[:2]):
        counts = Counter(tuple(response) for response in drawn[number * 6000 : (number + 1) * 6000])
        for response, probability in exact(model, prompt, sampling).items():
            assert abs(counts[response] / 6000 - probability) < 0.02, response


def exact(model: Any, prompt: list[int], sampling: Sampling) -> dict[tuple[int, ...], float]:
    """Probability of every response of at most two tokens, from whole forward passes."""

    def shares(tokens: list[int]) -> list[float]:
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, -1] / sampling.temperature
        probabilities = logits.softmax(-1)
        order = probabilities.argsort(descending=True).tolist()
        kept, total = [], 0.0
        for rank, token in enumerate(order):
            if total >= sampling.top_p or (sampling.top_k and rank >= sampling.top_k):
                break
            kept.append(token)
            total += float(probabilities[token])
        return [float(p) / total if token in kept else 0.0 for token, p in enumerate(probabilities)]

    found: dict[tuple[int, ...], float] = {}
    for first, share in enumerate(shares(prompt)):
        if first in {END, 8}:
            found[(first,)] = share
        elif share > 0.001:
            for second, after in enumerate(shares([*prompt, first])):
                found[first, second] = share * after
    return found


def test_merged_weights_are_base_plus_adapter_and_leave_the_base_alone(
    model_folder: Path, prompts: list[list[int]], make_spec: Callable[..., PhaseSpec]
) -> None:
    adapted = with_adapter(loaded(model_folder), None, make_spec())
    before = {name: tensor.clone() for name, tensor in adapted.get_base_model().state_dict().items()}
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter))
    policy = MergedPolicy(loaded(model_folder))
    tokens = torch.tensor([prompts[1]])
    unmerged = policy.model(tokens).logits
    policy.refresh(adapted)
    with torch.no_grad():
        assert torch.allclose(policy.model(tokens).logits, adapted(tokens).logits, atol=1e-4)
    assert not torch.allclose(policy.model(tokens).logits, unmerged, atol=1e-2)
    for name, tensor in adapted.get_base_model().state_dict().items():
        if "lora_" not in name:
            assert torch.equal(tensor, before[name])
