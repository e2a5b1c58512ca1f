"""Your own data: both shapes and both formats give the same rows; every mistake is one line that says where."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pytest
from pyarrow import parquet

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.sections import FilesTask
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.task import ChainArithmetic
from llmzero_hpc.tasks.files import FilesDataset, check_on_samples
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.tasks.reward_file import load_reward

if TYPE_CHECKING:
    from pathlib import Path

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == ground_truth and not extra_info["truncated"])
"""

VERL_ROW = {
    "data_source": "beat",
    "prompt": [{"role": "system", "content": "Answer."}, {"role": "user", "content": "1+1?"}],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"split": "train", "index": 0},
}


class Folder:
    """Files of a user in a folder of their own, and the task made of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("train.jsonl", {"prompt": "1+1?", "answer": "2"}, {"prompt": "2+2?", "answer": "4"})
        self.write("validation.jsonl", {"prompt": "3+3?", "answer": "6"})
        self.reward(REWARD)

    def write(self, name: str, *rows: object) -> None:
        self.text(name, "".join(json.dumps(row) + "\n" for row in rows))

    def text(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def reward(self, code: str) -> None:
        self.text("reward.py", code)

    def load(self, **names: str) -> FilesDataset:
        files = {"train": "train.jsonl", "validation": "validation.jsonl", "reward": "reward.py"} | names
        function = files.pop("reward_function", "compute_score")
        paths = {key: self.path / name for key, name in files.items()}
        task = load_task(FilesTask.model_validate({**paths, "reward_function": function}))
        assert isinstance(task, FilesDataset)
        return task

    def complaint(self, **names: str) -> str:
        """The one line, without the folder, that checking this task ends with."""
        with pytest.raises(ConfigurationError) as caught:
            check_on_samples(self.load(**names))
        assert "\n" not in caught.value.message + caught.value.next_step
        return caught.value.message.replace(str(self.path) + "/", "")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_simple_rows_have_one_data_source(folder: Folder) -> None:
    row = folder.load().rows(Split.TRAIN)[1]
    assert (row.prompt, row.ground_truth, row.data_source, row.extra_info) == ("2+2?", "4", "default", {})


def test_rows_in_verl_shape(folder: Folder) -> None:
    folder.write("train.jsonl", VERL_ROW)
    row = folder.load().rows(Split.TRAIN)[0]
    assert row.prompt == tuple(VERL_ROW["prompt"])
    assert (row.ground_truth, row.data_source, row.extra_info) == ("2", "beat", {"split": "train", "index": 0})


def test_parquet_gives_the_same_rows_as_jsonl(folder: Folder) -> None:
    rows = [VERL_ROW, VERL_ROW | {"data_source": "chord", "extra_info": {"split": "train", "index": 1}}]
    folder.write("train.jsonl", *rows)
    parquet.write_table(pa.Table.from_pylist(rows), folder.path / "train.parquet")
    assert folder.load(train="train.parquet").rows(Split.TRAIN) == folder.load().rows(Split.TRAIN)


def test_blank_lines_a_byte_order_mark_and_odd_separators_are_no_rows(folder: Folder) -> None:
    folder.text("train.jsonl", '\ufeff\n{"prompt": "a\u2028b", "answer": 7}\r\n\r\n{"prompt": "c", "answer": 0.5}')
    rows = folder.load().rows(Split.TRAIN)
    assert [(row.prompt, row.ground_truth) for row in rows] == [("a\u2028b", "7"), ("c", "0.5")]


def test_a_test_file_is_the_users_choice(folder: Folder) -> None:
    assert folder.load().splits == (Split.TRAIN, Split.VALIDATION)
    with pytest.raises(ConfigurationError, match=r"task\.test: no file is named"):
        folder.load().rows(Split.TEST)
    folder.write("test.jsonl", {"prompt": "4+4?", "answer": "8"})
    task = folder.load(test="test.jsonl")
    assert [row.prompt for row in task.rows(Split.TEST)] == ["4+4?"]
    check_on_samples(task)


def test_reward_is_called_as_verl_calls_it_and_told_of_truncation(folder: Folder) -> None:
    folder.reward(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    assert data_source == 'beat' and ground_truth == '2'\n"
        "    assert extra_info == {'split': 'train', 'index': 0, 'truncated': solution_str == 'cut'}\n"
        "    return {'score': 0.25, 'acc': 1}\n"
    )
    folder.write("train.jsonl", VERL_ROW)
    task = folder.load()
    row = task.rows(Split.TRAIN)[0]
    assert task.reward(row, "whole", truncated=False) == 0.25
    assert task.reward(row, "cut", truncated=True) == 0.25
    assert "truncated" not in row.extra_info


@pytest.mark.parametrize(("code", "expected"), [("True", 1.0), ("-3", -3.0), ("__import__('numpy').float32(0.5)", 0.5)])
def test_any_kind_of_number_is_a_reward(folder: Folder, code: str, expected: float) -> None:
    folder.reward(f"def compute_score(**given): return {code}")
    task = folder.load()
    assert task.reward(task.rows(Split.TRAIN)[0], "", truncated=False) == expected


def test_reward_function_by_another_name_with_a_dataclass_in_its_file(folder: Folder) -> None:
    folder.reward(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Score:\n    value: float = 1.0\n"
        "def mine(**given): return Score().value\n"
    )
    check_on_samples(folder.load(reward_function="mine"))


def test_samples_are_spread_over_the_split_and_scored_right_and_empty(folder: Folder) -> None:
    folder.reward(
        "from pathlib import Path\n"
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    with (Path(__file__).parent / 'calls').open('a') as calls:\n"
        "        print(ground_truth, repr(solution_str), file=calls)\n"
        "    return 0\n"
    )
    folder.write("train.jsonl", *({"prompt": "?", "answer": str(number)} for number in range(9)))
    check_on_samples(folder.load(), count=3)
    calls = (folder.path / "calls").read_text().splitlines()
    train = ["0 '0'", "0 ''", "4 '4'", "4 ''", "8 '8'", "8 ''"]
    assert calls == [*train, "6 '6'", "6 ''"]


def test_the_chains_task_passes_the_check() -> None:
    check_on_samples(ChainArithmetic())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON (Expecting property name enclosed in double quotes, column 2)"),
        ("[" * 100_000, "not JSON (maximum recursion depth exceeded"),
        ("[1]", "a list instead of an object"),
        ('"text"', "text instead of an object"),
        ('{"answer": "2"}', "prompt is missing"),
        ('{"prompt": null, "answer": "2"}', "prompt is missing"),
        ('{"prompt": " ", "answer": "2"}', "prompt is empty"),
        ('{"prompt": [], "answer": "2"}', "prompt is empty"),
        ('{"prompt": 5, "answer": "2"}', "prompt is a number instead of text or a list of messages"),
        ('{"prompt": ["hi"], "answer": "2"}', "message 1 of the prompt has no text under 'role'"),
        (
            '{"prompt": [{"role": "user", "content": "a"}, {"role": "user"}], "answer": "2"}',
            "message 2 of the prompt has no text under 'content'",
        ),
        ('{"prompt": "1+1?"}', "answer is missing"),
        ('{"prompt": "1+1?", "answer": ["2"]}', "answer is a list instead of text or a number"),
        ('{"prompt": "1+1?", "answer": true}', "answer is true or false instead of text or a number"),
        ('{"prompt": "1+1?", "reward_model": {"style": "rule"}}', "reward_model.ground_truth is missing"),
        ('{"prompt": "1+1?", "reward_model": "rule"}', "reward_model is text instead of an object"),
        ('{"prompt": "1+1?", "answer": "2", "data_source": 3}', "data_source is a number instead of a name"),
        ('{"prompt": "1+1?", "answer": "2", "data_source": ""}', "data_source is empty instead of a name"),
        ('{"prompt": "1+1?", "answer": "2", "extra_info": [1]}', "extra_info is a list instead of an object"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(folder: Folder, line: str, complaint: str) -> None:
    folder.text("train.jsonl", f'{{"prompt": "1+1?", "answer": "2"}}\n\n{line}\n')
    assert folder.complaint().startswith("train.jsonl line 3: " + complaint)


def test_a_wrong_row_of_the_test_is_found_too(folder: Folder) -> None:
    folder.write("test.jsonl", {"prompt": "1+1?"})
    assert folder.complaint(test="test.jsonl") == "test.jsonl line 1: answer is missing"


def test_a_wrong_row_of_a_parquet_file_is_named_with_its_number(folder: Folder) -> None:
    rows = [{"prompt": "1+1?", "answer": "2"}, {"prompt": "2+2?", "answer": None}]
    parquet.write_table(pa.Table.from_pylist(rows), folder.path / "train.parquet")
    assert folder.complaint(train="train.parquet") == "train.parquet row 2: answer is missing"


def test_files_that_are_no_data(folder: Folder) -> None:
    assert folder.complaint(train="nowhere.jsonl") == "nowhere.jsonl: the file is not there"
    assert folder.complaint(validation="data.csv") == "data.csv: neither .jsonl nor .parquet"
    folder.text("train.jsonl", "\n")
    assert folder.complaint() == "train.jsonl: the file holds no rows"
    folder.text("train.parquet", "no")
    assert folder.complaint(train="train.parquet").startswith("train.parquet: not a parquet file (")
    (folder.path / "train.jsonl").write_bytes(b'{"prompt": "a", "answer": "b"}\n{"prompt": "\xff"}\n')
    assert folder.complaint() == "train.jsonl line 2: not UTF-8 text"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("def compute_score(:", "reward.py line 1: the reward file does not import: SyntaxError: invalid syntax"),
        (
            "\nimport not_there",
            "reward.py line 2: the reward file does not import: ModuleNotFoundError: No module named 'not_there'",
        ),
        ("x = 1\n\nraise SystemExit", "reward.py line 3: the reward file does not import: SystemExit"),
        ("", "reward.py: there is no function 'compute_score'"),
        ("compute_score = 5", "reward.py: there is no function 'compute_score'"),
        ("def score(): ...", "reward.py: there is no function 'compute_score'; it has score"),
        (
            "def compute_score(**given):\n    return helper()\ndef helper():\n    return {}['a']",
            "reward.py line 4: compute_score raised KeyError: 'a' on train.jsonl line 1",
        ),
        (
            "def compute_score(a): return 1",
            (
                "reward.py: compute_score raised TypeError: compute_score() got an unexpected keyword argument "
                "'data_source' on train.jsonl line 1"
            ),
        ),
        (
            "def compute_score(**given): exit('a\\nb')",
            "reward.py line 1: compute_score raised SystemExit: a b on train.jsonl line 1",
        ),
        (
            "def compute_score(**given): raise ValueError",
            "reward.py line 1: compute_score raised ValueError on train.jsonl line 1",
        ),
        (
            "def compute_score(**given): pass",
            "reward.py: compute_score returned None (NoneType) on train.jsonl line 1",
        ),
        (
            "def compute_score(**given): return '1.0'",
            "reward.py: compute_score returned '1.0' (str) on train.jsonl line 1",
        ),
        (
            "def compute_score(**given): return [1]",
            "reward.py: compute_score returned [1] (list) on train.jsonl line 1",
        ),
        (
            "def compute_score(**given): return __import__('numpy').ones(2)",
            "reward.py: compute_score returned array([1., 1.]) (ndarray) on train.jsonl line 1",
        ),
        (
            "def compute_score(**given): return float('nan')",
            "reward.py: compute_score returned nan on train.jsonl line 1",
        ),
        (
            "def compute_score(**given): return {'score': float('inf')}",
            "reward.py: compute_score returned inf on train.jsonl line 1",
        ),
        (
            "def compute_score(**given): return {'acc': 1}",
            "reward.py: compute_score returned a dict without 'score' (keys: acc) on train.jsonl line 1",
        ),
    ],
)
def test_a_wrong_reward_is_one_line_that_says_where(folder: Folder, code: str, complaint: str) -> None:
    folder.reward(code)
    assert folder.complaint() == complaint


def test_a_reward_that_fails_on_the_empty_response_is_found_before_the_search(folder: Folder) -> None:
    folder.reward("def compute_score(solution_str, **given):\n    return float(solution_str[0])")
    assert folder.complaint() == (
        "reward.py line 2: compute_score raised IndexError: string index out of range on train.jsonl line 1"
    )


def test_a_reward_that_fails_on_one_row_names_that_row(folder: Folder) -> None:
    folder.reward("def compute_score(ground_truth, **given):\n    return {'2': 1.0}[ground_truth]")
    assert folder.complaint() == "reward.py line 2: compute_score raised KeyError: '4' on train.jsonl line 2"


def test_a_reward_file_that_is_not_there(folder: Folder) -> None:
    assert folder.complaint(reward="none.py") == "none.py: the reward file is not there"
    folder.text("reward.txt", REWARD)
    assert folder.complaint(reward="reward.txt") == "reward.txt: not a Python file"


def test_two_reward_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "reward.py").write_text(f"VALUE = {value}\ndef compute_score(**given): return VALUE\n")
    first, second = (load_reward(tmp_path / name / "reward.py", "compute_score") for name in ("a", "b"))
    assert (first.function(), second.function()) == (1, 2)
