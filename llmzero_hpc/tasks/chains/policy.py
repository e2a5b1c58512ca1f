"""The policy that the chains task starts from: tiny, warm-started by supervised steps on a flawed corpus.

The corpus misleads twice. A share of the one-step facts (`3+4=7`) is mostly shown wrong, so that greedy answers are
wrong while sampled ones are now and then right. And most texts overthink: after the answer comes `?` and the whole
derivation again, so that most responses are cut off at the limit. Training has to unlearn both.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from llmzero_hpc.errors import MissingDependencyError
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.problem import FAMILIES, MODULUS, Family, Problem, apply, draw
from llmzero_hpc.tasks.chains.tokenizer import END, PADDING, VOCABULARY, encode, make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_IGNORED: Final = -100
"""The label that cross entropy leaves out."""

Facts: TypeAlias = dict[tuple[int, str, int], tuple[int, float]]
"""(value, operator, operand) to the wrong result and the share of texts that show the right one."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the policy depends on. Change `version` with any change of what the code does with the rest."""

    version: int = 1
    seed: int = 0
    families: tuple[Family, ...] = FAMILIES
    """Drawn alike for each text; one that is named more often occurs more often."""
    derivation_steps: int = 360
    """Supervised steps on first derivations alone, a third as long: to copy and to calculate is learned there."""
    derivation_batch: int = 48
    text_steps: int = 420
    """Supervised steps on whole texts, after the former."""
    text_batch: int = 32
    learning_rate: float = 8e-3
    wrong_facts: float = 0.3
    """Share of the one-step facts that are mostly shown wrong."""
    right_shown: tuple[float, ...] = (0.35, 0.15)
    """How often a text shows such a fact right all the same; one of these for each fact."""
    fact_seed: int = 7
    overthinking: float = 0.9
    """Share of texts that go on after the answer."""
    again: float = 0.93
    """Probability of one more derivation in such a text."""
    direct: float = 0.0
    """Share of texts that give the answer without deriving it, which a policy can only guess."""
    longest_response: int = 80
    """Tokens after which an overthinking text is cut off, without an end token."""
    layers: int = 2
    width: int = 64
    feed_forward: int = 192
    heads: int = 4
    key_value_heads: int = 2


RECIPE: Final = Recipe()


def build_policy(
    directory: Path, progress: Callable[[int, int], None] | None = None, *, recipe: Recipe = RECIPE
) -> None:
    """Train the policy and save it, with its tokenizer, as a Hugging Face folder.

    On one thread, whatever torch was set to. The same recipe gives the same bytes on the same machine and packages.

    Args:
        directory: made if it is not there.
        progress: called after each supervised step with the steps done and the steps in all.
        recipe: what to build.

    Raises:
        MissingDependencyError: torch or transformers is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("the chains policy needs torch", "pip install 'llmzero-hpc[local]'") from None
    with _one_thread(torch), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _make_model(recipe)
        _warm_start(torch, model, recipe, progress)
    _save(model, directory)


def misremembered_facts(recipe: Recipe) -> Facts:
    """The one-step facts that the corpus mostly shows wrong."""
    random = Random(recipe.fact_seed)  # noqa: S311 - must repeat
    facts: Facts = {}
    for operator in "+*":
        for value in range(MODULUS):
            for operand in range(1, MODULUS):
                if random.random() < recipe.wrong_facts:
                    wrong = (apply(operator, value, operand) + random.randint(1, 9)) % MODULUS
                    facts[value, operator, operand] = (wrong, random.choice(recipe.right_shown))
    return facts


@contextlib.contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _make_model(recipe: Recipe) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(VOCABULARY),
            hidden_size=recipe.width,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.key_value_heads,
            head_dim=recipe.width // recipe.heads,
            max_position_embeddings=512,
            initializer_range=0.04,
            tie_word_embeddings=True,
            rope_parameters={"rope_theta": 10000.0, "rope_type": "default"},
            bos_token_id=None,
            eos_token_id=VOCABULARY[END],
            pad_token_id=VOCABULARY[PADDING],
            dtype="float32",
        )
    )
    model.generation_config.eos_token_id = VOCABULARY[END]
    model.generation_config.pad_token_id = VOCABULARY[PADDING]
    return model


def _save(model: Any, directory: Path) -> None:
    from safetensors.torch import save_file

    # Not model.save_pretrained: it draws a progress bar over whatever the caller shows.
    directory.mkdir(parents=True, exist_ok=True)
    tied = "lm_head.weight"
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != tied}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)


def _warm_start(torch: Any, model: Any, recipe: Recipe, progress: Callable[[int, int], None] | None) -> None:
    random = Random(recipe.seed)  # noqa: S311 - must repeat
    facts = misremembered_facts(recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    steps = recipe.derivation_steps + recipe.text_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * max(0.03, 1 - step / steps)
    )
    model.train()
    for step in range(steps):
        if step < recipe.derivation_steps:
            # One family a batch: rows of much the same length leave little padding to compute.
            family = recipe.families[step % len(recipe.families)]
            texts = [_first_derivation(random, family, facts) for _ in range(recipe.derivation_batch)]
        else:
            texts = [_text(random, facts, recipe) for _ in range(recipe.text_batch)]
        tokens, labels = _batch(torch, texts)
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    model.eval()


def _batch(torch: Any, texts: list[tuple[list[int], list[int]]]) -> tuple[Any, Any]:
    """Rows padded on the right, where causal attention needs no mask, and labels on the responses alone."""
    longest = max(len(prompt) + len(response) for prompt, response in texts)
    tokens = torch.full((len(texts), longest), VOCABULARY[PADDING])
    labels = torch.full((len(texts), longest), _IGNORED)
    for row, (prompt, response) in enumerate(texts):
        end = len(prompt) + len(response)
        tokens[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
    return tokens, labels


def _first_derivation(random: Random, family: Family, facts: Facts) -> tuple[list[int], list[int]]:
    problem = draw(random, family, Split.TRAIN)
    return encode(problem.prompt), encode(_derive(random, problem, facts))


def _text(random: Random, facts: Facts, recipe: Recipe) -> tuple[list[int], list[int]]:
    problem = draw(random, random.choice(recipe.families), Split.TRAIN)
    if recipe.direct and random.random() < recipe.direct:
        return encode(problem.prompt), [*encode("#" + problem.answer), VOCABULARY[END]]
    response = encode(_derive(random, problem, facts))
    if random.random() < recipe.overthinking:
        while random.random() < recipe.again and len(response) < recipe.longest_response:
            response += encode("?" + _derive(random, problem, facts))
    if len(response) >= recipe.longest_response:
        return encode(problem.prompt), response[: recipe.longest_response]
    return encode(problem.prompt), [*response, VOCABULARY[END]]


def _derive(random: Random, problem: Problem, facts: Facts) -> str:
    values = []
    value = problem.start
    for operator, operand in problem.operations:
        wrong, right_shown = facts.get((value, operator, operand), (0, 1.0))
        value = apply(operator, value, operand) if random.random() < right_shown else wrong
        values.append(value)
    return problem.derivation(values)
