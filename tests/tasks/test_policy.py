"""The chains policy: the same bytes from the same recipe, built once, whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from llmzero_hpc.errors import ConfigurationError, StorageError
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.cache import cache_directory, ensure_policy, policy_folder
from llmzero_hpc.tasks.chains.policy import RECIPE, build_policy, misremembered_facts
from llmzero_hpc.tasks.chains.problem import apply
from llmzero_hpc.tasks.chains.task import ChainArithmetic
from llmzero_hpc.tasks.models import resolve_model

if TYPE_CHECKING:
    from pathlib import Path

TINY = replace(RECIPE, derivation_steps=2, derivation_batch=4, text_steps=2, text_batch=4)

BUILD = """
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.cache import ensure_policy
from llmzero_hpc.tasks.chains.policy import Recipe
from llmzero_hpc.tasks.chains.problem import Family
print(ensure_policy(recipe={recipe!r}))
"""


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMZERO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_same_recipe_same_bytes_whatever_the_caller_did_to_torch(tmp_path: Path) -> None:
    build_policy(tmp_path / "one", recipe=TINY)
    torch.manual_seed(123)
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    build_policy(tmp_path / "two", recipe=TINY)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_folder_is_a_hugging_face_model_with_its_tokenizer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    build_policy(tmp_path / "policy", recipe=TINY)
    assert capfd.readouterr().out == ""
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert model.config.model_type == "qwen3"
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer.padding_side == "left"
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id == 1
    inputs = tokenizer(["9+4*6>", "1+2+3+4+5>"], return_tensors="pt", padding=True)
    assert tokenizer.decode(inputs["input_ids"][1]) == "1+2+3+4+5>"
    assert model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.shape == (2, 6, 48)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_policy(tmp_path, lambda done, total: seen.append((done, total)), recipe=TINY)
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


@pytest.mark.slow
@pytest.mark.training
def test_the_policy_is_wrong_when_greedy_now_and_then_right_when_sampled_and_mostly_cut_off() -> None:
    """What makes the order of training phases matter. Builds the policy into the user's cache, as the demo does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = ensure_policy()
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    task = ChainArithmetic()
    rows = task.rows(Split.VALIDATION)
    inputs = tokenizer([row.prompt for row in rows], return_tensors="pt", padding=True)

    def rewards_and_truncation(**sampling: object) -> tuple[dict[str, float], float]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            outputs = model.generate(**inputs, max_new_tokens=64, **sampling)[
                :, inputs["input_ids"].shape[1] :
            ].tolist()
        sums: Counter[str] = Counter()
        for row, output in zip(rows, outputs, strict=True):
            truncated = tokenizer.eos_token_id not in output
            response = tokenizer.decode(output, skip_special_tokens=True)
            sums[row.data_source] += task.reward(row, response, truncated=truncated) > 0
            sums["truncated"] += truncated
        return {name: sums[name] / 256 for name in ("short", "long")}, sums["truncated"] / 512

    greedy, _ = rewards_and_truncation(do_sample=False)
    assert max(greedy.values()) < 0.05
    sampled, truncated = rewards_and_truncation(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    assert 0.05 < sampled["short"] < 0.3
    assert 0.005 < sampled["long"] < 0.15
    assert 0.6 < truncated < 0.85


def test_about_a_third_of_the_facts_is_shown_wrong() -> None:
    facts = misremembered_facts(RECIPE)
    assert len(facts) == 58
    for (value, operator, operand), (wrong, right_shown) in facts.items():
        assert wrong != apply(operator, value, operand)
        assert right_shown in RECIPE.right_shown


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LLMZERO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_directory() == tmp_path / "home" / ".cache" / "llmzero-hpc"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "llmzero-hpc"
    monkeypatch.setenv("LLMZERO_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"


def test_another_recipe_is_another_folder(cache: Path) -> None:
    assert policy_folder(recipe=replace(RECIPE, seed=1)) != policy_folder()
    assert policy_folder(recipe=replace(RECIPE, version=RECIPE.version + 1)) != policy_folder()
    assert policy_folder().parent == cache


def test_it_is_built_once(cache: Path) -> None:
    folder = ensure_policy(recipe=TINY)
    before = contents(folder)

    def never(done: int, total: int) -> None:
        raise AssertionError

    assert ensure_policy(never, recipe=TINY) == folder
    assert contents(folder) == before


def test_an_interrupted_build_leaves_nothing(cache: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_policy(interrupt, recipe=TINY)
    assert list(cache.iterdir()) == []
    assert (ensure_policy(recipe=TINY) / "config.json").is_file()


def test_another_process_may_finish_first(cache: Path) -> None:
    """The other one publishes while this one still trains: its result stays, and ours is given up."""
    first: list[dict[str, str]] = []

    def publish_another(done: int, total: int) -> None:
        if done == 1:
            build_policy(policy_folder(recipe=TINY), recipe=TINY)
            first.append(contents(policy_folder(recipe=TINY)))

    folder = ensure_policy(publish_another, recipe=TINY)
    assert contents(folder) == first[0]
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_two_processes_at_once_make_one_result(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD.format(recipe=TINY)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=500)[0].splitlines()[-1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    folder = policy_folder(recipe=TINY)
    assert said == [str(folder)] * 2
    assert [path.name for path in cache.iterdir()] == [folder.name]
    build_policy(tmp_path / "alone", recipe=TINY)
    assert contents(folder) == contents(tmp_path / "alone")


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMZERO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match=r"the policy cannot be kept in .*file/cache: Not a directory") as caught:
        ensure_policy(recipe=TINY)
    assert "LLMZERO_CACHE" in caught.value.next_step


def test_a_model_is_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("builtin:chain", "model: 'builtin:chain' is unknown"),
        ("/nowhere/at/all", "model: there is no folder /nowhere/at/all"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(model: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        resolve_model(model)
    assert caught.value.next_step


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no config\.json"):
        resolve_model(str(tmp_path))


def test_the_builtin_model_comes_from_the_cache(cache: Path) -> None:
    policy_folder().mkdir(parents=True)
    assert resolve_model("builtin:chains") == policy_folder()
