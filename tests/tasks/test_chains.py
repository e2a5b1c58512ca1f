"""The chains task: rows that never change, splits that never meet, a reward that wants the whole answer in time."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.sections import ChainsTask
from llmzero_hpc.tasks.base import Row, Split
from llmzero_hpc.tasks.chains.problem import FAMILIES, LONG, SHORT, Problem, split_of
from llmzero_hpc.tasks.chains.task import ChainArithmetic
from llmzero_hpc.tasks.chains.tokenizer import END, VOCABULARY, encode, make_tokenizer
from llmzero_hpc.tasks.registry import load_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

problems = st.sampled_from(FAMILIES).flatmap(
    lambda family: st.builds(
        Problem,
        st.integers(0, 9),
        st.lists(
            st.tuples(st.sampled_from(family.operators), st.integers(1, 9)),
            min_size=family.shortest,
            max_size=family.longest,
        ).map(tuple),
    )
)


@pytest.fixture(scope="module")
def task() -> ChainArithmetic:
    loaded = load_task(ChainsTask())
    assert isinstance(loaded, ChainArithmetic)
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def digest(rows: Sequence[Row]) -> str:
    return hashlib.sha256("\n".join(f"{row.prompt} {row.ground_truth}" for row in rows).encode()).hexdigest()[:16]


def test_splits_have_their_size_and_both_families_in_turn(task: ChainArithmetic) -> None:
    for split, size in {Split.TRAIN: 4096, Split.VALIDATION: 512, Split.TEST: 1024}.items():
        rows = task.rows(split)
        assert len(rows) == size
        assert Counter(row.data_source for row in rows) == {"short": size // 2, "long": size // 2}
        assert [row.data_source for row in rows[:4]] == ["short", "long"] * 2


def test_rows_are_those_of_every_earlier_version(task: ChainArithmetic) -> None:
    # Scores of different versions of this program can be compared only as long as this holds.
    assert [digest(task.rows(split)) for split in Split] == [
        "ccf53ee504fa446a",
        "c302f3c7b51ba97d",
        "95c60a89778768d5",
    ]


def test_rows_are_the_same_in_another_process(task: ChainArithmetic) -> None:
    script = (
        "import hashlib;from llmzero_hpc.tasks.base import Split;"
        "from llmzero_hpc.tasks.chains.task import ChainArithmetic;"
        "print(hashlib.sha256(repr(ChainArithmetic().rows(Split.TEST)).encode()).hexdigest())"
    )
    here = hashlib.sha256(repr(task.rows(Split.TEST)).encode()).hexdigest()
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        )
        assert there.stdout.strip() == here


def test_no_prompt_is_in_two_splits(task: ChainArithmetic) -> None:
    prompts = {split: {row.prompt for row in task.rows(split)} for split in Split}
    assert not prompts[Split.TRAIN] & prompts[Split.VALIDATION]
    assert not prompts[Split.TRAIN] & prompts[Split.TEST]
    assert not prompts[Split.VALIDATION] & prompts[Split.TEST]


def test_rows_of_validation_and_test_are_all_different(task: ChainArithmetic) -> None:
    for split in (Split.VALIDATION, Split.TEST):
        prompts = [row.prompt for row in task.rows(split)]
        assert len(set(prompts)) == len(prompts)


def test_every_split_has_the_same_lengths_of_problems(task: ChainArithmetic) -> None:
    for split in Split:
        lengths = Counter(row.extra_info["operations"] for row in task.rows(split))
        for family in FAMILIES:
            kinds = range(family.shortest, family.longest + 1)
            expected = len(task.rows(split)) / 2 / len(kinds)
            assert all(0.6 * expected < lengths[length] < 1.4 * expected for length in kinds)


def test_problems_are_of_their_family_and_ground_truths_right(task: ChainArithmetic) -> None:
    for row in task.rows(Split.TEST):
        assert isinstance(row.prompt, str)
        family = SHORT if row.data_source == "short" else LONG
        assert re.fullmatch(rf"\d([{family.operators}][1-9]){{{family.shortest},{family.longest}}}>", row.prompt)
        values = [int(row.prompt[0])]
        for operator, operand in zip(row.prompt[1:-1:2], row.prompt[2:-1:2], strict=True):
            step = values[-1] + int(operand) if operator == "+" else values[-1] * int(operand)
            values.append(step % 10)
        assert row.ground_truth == f"{values[-2]}{values[-1]}"


@pytest.mark.parametrize(
    ("response", "truncated", "expected"),
    [
        ("+4=3*6=8#38", False, 1.0),
        ("#38", False, 1.0),
        ("+4=1*6=6#16?+4=3*6=8#38", False, 1.0),
        ("+4=3*6=8#38", True, 0.0),  # cut off right after the answer: it did not end by itself
        ("#38", True, 0.0),
        ("+4=3*6=8#38?", False, 0.0),
        ("+4=3*6=8#388", False, 0.0),
        ("+4=3*6=8#8", False, 0.0),
        ("+4=3*6=8#83", False, 0.0),
        ("+4=3*6=838", False, 0.0),
        ("38", False, 0.0),
        ("#", False, 0.0),
        ("", False, 0.0),
        ("", True, 0.0),
    ],
)
def test_reward_wants_the_answer_at_the_end_and_in_time(
    task: ChainArithmetic, response: str, truncated: bool, expected: float
) -> None:
    assert task.reward(Row("9+4*6>", "38", "short"), response, truncated=truncated) == expected


@given(problem=problems)
def test_the_solution_of_any_problem_is_rewarded_and_fits(problem: Problem, task: ChainArithmetic) -> None:
    row = Row(problem.prompt, problem.answer, "any")
    assert task.reward(row, problem.solution, truncated=False) == 1.0
    with_end = len(encode(problem.solution)) + 1
    assert with_end <= (16 if len(problem.operations) <= SHORT.longest else 52)
    assert split_of(problem.prompt) in Split


@given(problem=problems, overthought=st.booleans())
def test_tokenizer_gives_the_exact_text_back(
    problem: Problem, overthought: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    for text in (problem.prompt, problem.solution + ("?" + problem.solution) * overthought):
        tokens = tokenizer(text)["input_ids"]
        assert tokenizer.decode(tokens) == text
        assert tokens == encode(text)
        assert tokenizer.decode([*tokens, VOCABULARY[END]], skip_special_tokens=True) == text


@given(tokens=st.lists(st.integers(3, 47), max_size=40))
def test_no_output_of_the_policy_vanishes_in_decoding(tokens: list[int], tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    inverse = {number: token for token, number in VOCABULARY.items()}
    assert text == "".join(inverse[token] for token in tokens)


def test_tokenizer_pads_on_the_left_and_adds_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = tokenizer(["9+4*6>", "1+2+3+4+5>"], padding=True)
    assert batch["input_ids"][0] == [0, 0, *encode("9+4*6>")]
    assert batch["attention_mask"][0] == [0, 0, 1, 1, 1, 1]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)) == (0, 1, 48)
