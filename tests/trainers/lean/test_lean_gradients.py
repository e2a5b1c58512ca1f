"""The lean trainer computes what transformers, PEFT and TRL compute: logits, samples, losses, gradients, updates.

float32 sums in another order differ by about 1e-6; the tolerances here are 1e-5 of the largest value, and of gradients
1e-4 of the largest element.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lean_phases import run
from tiny_phases import SMALL, attempt_of

from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.task import ChainArithmetic
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.decoding import Responses, Sampling, respond
from llmzero_hpc.trainers.lean.adapter import read_adapter
from llmzero_hpc.trainers.lean.objective import Batch, Learner, Objective, advantages
from llmzero_hpc.trainers.lean.policy import CachedPolicy, Policy, read_shape, read_weights
from llmzero_hpc.trainers.lean.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.trainers.base import PhaseSpec

pytestmark = pytest.mark.training

CONFIGURATIONS = {
    "plain": {},
    "kl": {"kl_coefficient": 0.3},
    "clip": {"clip_range": 0.02},
    "asymmetric": {"clip_range": 0.02, "overrides": {"epsilon_high": 0.2}},
    "advantages": {"advantage_normalization": False},
    "temperature": {"temperature": 0.6, "kl_coefficient": 0.1},
    "mini-batches": {"mini_batches": 4},
    "grpo": {"overrides": {"loss_type": "grpo"}},
    "bnpo": {"overrides": {"loss_type": "bnpo"}},
    "dr_grpo": {"overrides": {"loss_type": "dr_grpo"}},
}
"""One for each hyperparameter of the loss."""


@pytest.fixture
def parent(make_spec: Callable[..., PhaseSpec]) -> Path:
    """An adapter that has moved, so that gradients reach both of its matrices."""
    spec = run(make_spec("parent", replace(SMALL, learning_rate=3e-2), total_steps=2))
    return checkpoint_path(spec.checkpoints, 2)


def trl_of(spec: PhaseSpec) -> Any:
    """TRL's trainer, as a phase makes it, before its first step."""
    from llmzero_hpc.trainers.trl.train import Phase

    phase = Phase(spec, attempt_of(spec, 1))
    phase._load()
    return phase.trainer


def drawn(trainer: Any) -> dict[str, torch.Tensor]:
    """A whole generation as TRL makes it, as one batch, with old log-probabilities that differ from the policy's."""
    trainer.model.train()
    generation = next(iter(trainer.get_train_dataloader()))
    inputs = trainer._generate_and_score_completions(generation)
    with torch.no_grad():
        tokens = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        keep = inputs["completion_ids"].shape[1]
        own = trainer._get_per_token_logps_and_entropies(trainer.model, tokens, mask, keep)[0]
        torch.manual_seed(11)
        inputs["old_per_token_logps"] = own + 0.1 * torch.randn_like(own)
    return inputs


def batch_of(inputs: dict[str, torch.Tensor]) -> Batch:
    lengths = inputs["completion_mask"].sum(-1)
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)]
    responses = Responses(inputs["completion_ids"], lengths, inputs["old_per_token_logps"])
    return Batch(prompts, responses, inputs["advantages"])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_gradients_are_those_of_trl_on_the_same_batch(
    name: str, make_spec: Callable[..., PhaseSpec], parent: Path, model_folder: Path
) -> None:
    changes: dict[str, Any] = CONFIGURATIONS[name]
    configuration: Configuration = replace(SMALL, batch_size=8, **changes)
    spec = make_spec(name, configuration, parent_adapter=parent, first_step=3, total_steps=1)
    trainer = trl_of(spec)
    inputs = drawn(trainer)
    # The first mini-batch, as TRL splits what it has shuffled.
    rows = list(range(len(inputs["advantages"]) // configuration.mini_batches))
    assert inputs["advantages"][rows].abs().max() > 0
    part = {key: value[rows] if value.dim() else value for key, value in inputs.items()}
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(trainer.model, part)
    loss.backward()

    shape, weights = read_shape(model_folder), read_weights(model_folder)
    learner = Learner(shape, weights, read_adapter(parent, weights), configuration)
    objective = Objective(configuration, Policy(shape, weights, {}), chunk_rows=3)
    values = objective.backward(learner.policy(), batch_of(inputs), rows, measure_kl=False)

    ours = values["policy_loss"] + configuration.kl_coefficient * values.get("kl", 0.0)
    if configuration.overrides.get("loss_type") != "grpo":  # whose KL is averaged by response, not by token
        assert ours == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    theirs = {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    assert largest > 1e-4
    compared = 0
    for place, down in learner.adapter.down.items():
        for part_name, matrix in (("lora_A", down), ("lora_B", learner.adapter.up[place])):
            gradient = theirs[f"base_model.model.{place}.{part_name}.default.weight"]
            assert float((matrix.grad - gradient).abs().max()) < 1e-4 * largest, (place, part_name)
            compared += 1
    assert compared == len(theirs)


def test_an_update_moves_the_adapter_as_trl_does(
    make_spec: Callable[..., PhaseSpec], parent: Path, model_folder: Path
) -> None:
    # Adam's first step is the gradient's sign wherever epsilon is small, which noise may turn.
    configuration = replace(
        SMALL, mini_batches=1, batch_size=8, gradient_clip=0.05, overrides={"adam_epsilon": 1e-3, "weight_decay": 0.1}
    )
    spec = make_spec("update", configuration, parent_adapter=parent, first_step=3, total_steps=1)
    trainer = trl_of(spec)
    seen: list[dict[str, torch.Tensor]] = []
    original = trainer._generate_and_score_completions

    def remembered(inputs: Any) -> Any:
        seen.append(original(inputs))
        return seen[-1]

    trainer._generate_and_score_completions = remembered
    trainer.train()
    (inputs,) = seen
    shape, weights = read_shape(model_folder), read_weights(model_folder)
    learner = Learner(shape, weights, read_adapter(parent, weights), configuration)
    before = [matrix.detach().clone() for matrix in learner.adapter.parameters()]
    objective = Objective(configuration, Policy(shape, weights, {}), chunk_rows=64)
    with torch.no_grad():  # on-policy, TRL takes the policy's own log-probabilities for the old ones
        tokens = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        batch = batch_of(
            inputs | {"old_per_token_logps": torch.zeros(tokens.shape[0], inputs["completion_ids"].shape[1])}
        )
        rows = list(range(len(batch.prompts)))
        own = objective._scored(learner.policy(), batch, rows)[0]
        old = torch.zeros_like(batch.responses.logps)
        old[inputs["completion_mask"].bool()] = own
        batch = Batch(batch.prompts, Responses(batch.responses.tokens, batch.responses.lengths, old), batch.advantages)
    learner.update(objective, batch, rows, measure_kl=False)
    theirs = {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}
    after = [matrix.detach() for matrix in learner.adapter.parameters()]
    moved = max(float((new - old).abs().max()) for new, old in zip(after, before, strict=True))
    assert moved > 1e-3
    for place, down in learner.adapter.down.items():
        for part_name, matrix in (("lora_A", down), ("lora_B", learner.adapter.up[place])):
            other = theirs[f"base_model.model.{place}.{part_name}.default.weight"]
            assert float((matrix - other).abs().max()) < 1e-3 * moved, (place, part_name)


@pytest.mark.parametrize("normalized", [True, False])
def test_advantages_are_those_of_the_formula(*, normalized: bool) -> None:
    rewards = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    found, same = advantages(rewards, 4, normalized=normalized)
    assert same == 0.5
    expected = torch.tensor([-0.75, 0.25, 0.25, 0.25]) / (0.5 + 1e-4 if normalized else 1.0)
    assert torch.allclose(found[:4], expected)
    assert not found[4:].any()


def test_logits_are_those_of_transformers_and_peft(parent: Path, model_folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    weights = read_weights(model_folder)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), parent).eval()
    policy = Policy(read_shape(model_folder), weights, read_adapter(parent, weights).changes())
    tokens = torch.tensor([[5, 9, 12, 20, 31, 14, 7, 3, 40]])
    with torch.no_grad():
        theirs = adapted(tokens).logits
        assert torch.allclose(policy.logits(policy.hidden(tokens)), theirs, atol=1e-5 * float(theirs.abs().max()))


def test_responses_are_those_of_the_whole_forward_pass(parent: Path, model_folder: Path) -> None:
    """With prompts of different lengths, copies, and rows that end: each token and its probability."""
    weights, vocabulary = read_weights(model_folder), Vocabulary(model_folder)
    policy = Policy(read_shape(model_folder), weights, read_adapter(parent, weights).changes())
    prompts = vocabulary.prompts(ChainArithmetic().rows(Split.TRAIN)[:12])
    assert len(set(map(len, prompts))) > 3
    torch.manual_seed(0)
    with torch.no_grad():
        responses = respond(
            CachedPolicy(policy),
            prompts,
            copies=3,
            limit=40,
            end_tokens=[1, 8],
            padding=0,
            sampling=Sampling(0.9),
        )
        greedy = respond(CachedPolicy(policy), prompts, limit=20, end_tokens=[1], padding=0, sampling=Sampling(0))
        lengths = {len(row) for row in responses.lists()}
        assert len(lengths) > 3, "rows have to leave the batch at different times for this test to say anything"
        for number, (response, logps) in enumerate(zip(responses.lists(), responses.logps, strict=True)):
            prompt = prompts[number // 3]
            shares = (policy.logits(policy.hidden(torch.tensor([prompt + response]))) / 0.9).log_softmax(-1)[0]
            expected = [shares[len(prompt) - 1 + place, token] for place, token in enumerate(response)]
            assert torch.allclose(logps[: len(response)], torch.stack(expected), atol=1e-4)
        for prompt, response in zip(prompts, greedy.lists(), strict=True):
            best = policy.logits(policy.hidden(torch.tensor([prompt + response])))[0].argmax(-1)
            assert best[len(prompt) - 1 : -1].tolist() == response
