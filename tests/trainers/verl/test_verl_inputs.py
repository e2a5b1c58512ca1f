"""Rows, rewards and limits on their way through VeRL's files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pyarrow import parquet

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import ChainsTask, FilesTask
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.chains.task import ChainArithmetic
from llmzero_hpc.tasks.chains.tokenizer import encode, make_tokenizer
from llmzero_hpc.trainers.verl.inputs import write_phase_inputs
from llmzero_hpc.trainers.verl.layout import Layout
from llmzero_hpc.trainers.verl.placement import longest_prompt
from llmzero_hpc.trainers.verl.reward import compute_score
from llmzero_hpc.trainers.verl.tokens import TEXT_ROLE, end_tokens, prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmzero_hpc.trainers.base import PhaseSpec

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if solution_str == "boom":
        raise RuntimeError("it broke")
    return {"score": extra_info["weight"] * (solution_str == ground_truth) - extra_info["truncated"]}
"""
MIXED = [
    {"prompt": [{"role": "user", "content": "1+1"}], "answer": 2, "data_source": "sum", "extra_info": {"weight": 0.5}},
    {"prompt": [{"role": "user", "content": "b?"}], "answer": "B", "extra_info": {"weight": 1, "notes": ["x", 1]}},
]
"""Types that one column of a parquet file could not hold."""


@pytest.fixture
def own_task(tmp_path: Path) -> FilesTask:
    lines = "".join(json.dumps(row) + "\n" for row in MIXED)
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text(lines)
    (tmp_path / "reward.py").write_text(REWARD)
    return FilesTask(
        train=tmp_path / "train.jsonl", validation=tmp_path / "validation.jsonl", reward=tmp_path / "reward.py"
    )


@pytest.fixture
def written(
    own_task: FilesTask, make_phase: Callable[..., PhaseSpec], tmp_path: Path
) -> Callable[..., tuple[PhaseSpec, Layout]]:
    def write(**changes: Any) -> tuple[PhaseSpec, Layout]:
        small = Configuration(batch_size=2, mini_batches=1, max_response_length=512)
        spec = make_phase(**{"task": own_task, "configuration": small, **changes})
        place = Layout.of_run(tmp_path / "states", AttemptDirectory(tmp_path / "attempts/1"))
        write_phase_inputs(spec, place)
        return spec, place

    return write


def test_rows_carry_their_place_and_keep_their_order(written: Callable[..., tuple[PhaseSpec, Layout]]) -> None:
    _, place = written()
    rows = parquet.read_table(place.train_rows).to_pylist()
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in MIXED]
    assert [row["extra_info"] for row in rows] == [{"split": "train", "index": number} for number in range(2)]
    assert [row["data_source"] for row in rows] == ["sum", "default"]
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["2", "B"]
    assert {row["agent_name"] for row in rows} == {"training"}
    assert {row["agent_name"] for row in parquet.read_table(place.validation_rows).to_pylist()} == {"validation"}


def test_training_and_validation_have_limits_of_their_own(written: Callable[..., tuple[PhaseSpec, Layout]]) -> None:
    _, place = written(validation_max_response_length=2048)
    limits = {loop["name"]: loop["limit"] for loop in yaml.safe_load(place.agent_loops.read_text())}
    assert limits == {"training": 512, "validation": 2048}


def test_the_reward_sees_the_very_row(written: Callable[..., tuple[PhaseSpec, Layout]]) -> None:
    _, place = written()

    def score(response: str, index: int, *, truncated: bool = False) -> dict[str, float]:
        where = {"split": "validation", "index": index, "truncated": truncated, "num_turns": 2}
        return compute_score("sum", response, "ignored", where, task=str(place.task), reward_router_address=None)

    assert score("2", 0) == {"score": 0.5, "acc": 0.5, "truncated": 0.0}
    assert score("B", 1, truncated=True) == {"score": 0.0, "acc": 0.0, "truncated": 1.0}
    assert not place.mistake.exists()
    with pytest.raises(ConfigurationError):
        score("boom", 1)
    assert "reward.py line 4: compute_score raised RuntimeError: it broke" in place.mistake.read_text()


def test_fewer_rows_than_a_batch_are_refused(written: Callable[..., tuple[PhaseSpec, Layout]]) -> None:
    with pytest.raises(ConfigurationError, match="128 prompts, but there are only 2 training rows"):
        written(configuration=Configuration())


def test_plain_text_becomes_its_tokens_and_no_more(model_4b: Path) -> None:
    tokenizer = make_tokenizer()
    assert prompt_tokens(tokenizer, [{"role": TEXT_ROLE, "content": "4+9+8>"}]) == encode("4+9+8>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}>"
    assert prompt_tokens(tokenizer, [{"role": "user", "content": "4+9+8"}]) == encode("4+9+8>")


def test_no_prompt_of_the_chains_task_is_longer_than_is_said() -> None:
    task = ChainArithmetic()
    longest = max(len(encode(str(row.prompt))) for split in Split for row in task.rows(split))
    assert longest <= longest_prompt(ChainsTask())


def test_responses_end_with_the_models_own_tokens(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    assert end_tokens(str(tmp_path), tokenizer) == (1,)
    other = tmp_path / "other"  # a folder is read once
    other.mkdir()
    (other / "generation_config.json").write_text('{"eos_token_id": [5, 1]}')
    assert end_tokens(str(other), tokenizer) == (1, 5)
