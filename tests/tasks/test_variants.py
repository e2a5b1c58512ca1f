"""Variants of the chains task: frozen rows, the mix they promise, a policy of its own for each."""

from __future__ import annotations

import hashlib
from collections import Counter
from random import Random
from typing import get_args

import pytest

from llmzero_hpc.sections import ChainsTask
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.cache import policy_folder
from llmzero_hpc.tasks.chains.policy import _text, misremembered_facts
from llmzero_hpc.tasks.chains.tokenizer import END, VOCABULARY
from llmzero_hpc.tasks.chains.variants import DEMO, VARIANTS
from llmzero_hpc.tasks.registry import load_task

TEXTS = {number: token for token, number in VOCABULARY.items()}


def test_every_variant_may_be_chosen() -> None:
    assert get_args(ChainsTask.model_fields["variant"].annotation) == tuple(VARIANTS)
    recipes = [DEMO.recipe, *(variant.recipe for variant in VARIANTS.values())]
    assert len({policy_folder(recipe=recipe) for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize(
    ("name", "digest", "training"),
    [
        ("two-lengths", "95c60a89778768d5", {"short": 2048, "long": 2048}),
        ("near-tie", "521bcbc35e984773", {"short": 2731, "long": 1365}),
        ("trap", "db5a3a055dac0858", {"short": 2048, "long": 2048}),
        ("exploration", "d77d9e66d10a1239", {"rare": 4096}),
    ],
)
def test_rows_are_frozen_and_mixed_as_promised(name: str, digest: str, training: dict[str, int]) -> None:
    task = load_task(ChainsTask(variant=name))
    rows = task.rows(Split.TEST)
    told = "\n".join(f"{row.prompt} {row.ground_truth}" for row in rows)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == digest
    assert Counter(row.data_source for row in task.rows(Split.TRAIN)) == training
    counts = Counter(row.data_source for row in rows)
    assert len(set(counts.values())) == 1, "families count alike in the score"
    families = {family.name: family for family in VARIANTS[name].families}
    for row in rows:
        family = families[row.data_source]
        assert family.shortest <= row.extra_info["operations"] <= family.longest
        assert len(row.ground_truth) == family.answer_values


def test_the_trap_s_policy_is_taught_to_guess_and_no_other() -> None:
    for name, variant in VARIANTS.items():
        facts, random = misremembered_facts(variant.recipe), Random(0)
        texts = [_text(random, facts, variant.recipe)[1] for _ in range(600)]
        direct = sum(TEXTS[text[0]] == "#" for text in texts) / len(texts)
        assert direct == pytest.approx(0.4 if name == "trap" else 0.0, abs=0.06)
        ended = sum(TEXTS[text[-1]] == END for text in texts) / len(texts)
        assert (ended == 1.0) is (name in {"trap", "exploration"}), "the others overthink"


def test_what_has_to_be_explored_is_rarely_shown() -> None:
    facts = misremembered_facts(VARIANTS["exploration"].recipe)
    assert {shown for _, shown in facts.values()} == {0.005}
    assert 0.15 < len(facts) / 180 < 0.35
