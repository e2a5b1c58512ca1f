"""What the controller is told before anything is trained: problems of proposals, and of models and data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tiny_phases import SMALL, metrics
from trl_phases import run

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.errors import ConfigurationError, MissingDependencyError
from llmzero_hpc.sections import Hardware
from llmzero_hpc.trainers.registry import make_trainer
from llmzero_hpc.trainers.trl.trainer import TrlTrainer

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.sections import FilesTask

CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}>"


@pytest.fixture
def config(model_folder: Path, task: FilesTask) -> SearchConfig:
    return SearchConfig(name="small", model=str(model_folder), task=task, configuration=SMALL)


def changed(config: SearchConfig, **fields: Any) -> SearchConfig:
    return config.model_copy(update=fields)


def test_a_search_that_can_run_passes(config: SearchConfig) -> None:
    TrlTrainer().check(config)
    assert TrlTrainer().train_rows(config) == 24
    assert TrlTrainer().problems(config, SMALL) == []


def test_problems_are_found_without_heavy_imports() -> None:
    code = (
        "import sys\n"
        "from llmzero_hpc.config import SearchConfig\n"
        "from llmzero_hpc.trainers.registry import make_trainer\n"
        "config = SearchConfig(name='x', model='builtin:chains', task={'name': 'chains'})\n"
        "trainer = make_trainer('trl')\n"
        "assert trainer.problems(config, config.configuration.changed(target_modules='lm_head'))\n"
        "assert trainer.train_rows(config) == 4096\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target_modules": "q_proj,lm_head"}, "lm_head"),
        ({"target_modules": "all-linear,q_proj"}, "all-linear"),
        ({"target_modules": "q_proj,,v_proj"}, "joined by commas"),
        ({"overrides": {"output_dir": "elsewhere"}}, "output_dir"),
    ],
)
def test_proposals_that_would_be_refused(config: SearchConfig, change: dict[str, Any], words: str) -> None:
    (problem,) = TrlTrainer().problems(config, replace(SMALL, **change))
    assert words in problem
    assert "\n" not in problem


def test_a_batch_that_the_gpus_cannot_share_is_a_problem(config: SearchConfig) -> None:
    on_gpus = changed(config, hardware=Hardware(device="cuda", gpus=3))
    assert "3 GPUs" in TrlTrainer().problems(on_gpus, SMALL)[0]


def test_models_that_cannot_be_used(config: SearchConfig, tmp_path: Path, model_folder: Path) -> None:
    without_tokenizer = tmp_path / "model"
    without_tokenizer.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model_folder / name, without_tokenizer)
    without_weights = tmp_path / "shape"
    shutil.copytree(model_folder, without_weights, ignore=shutil.ignore_patterns("*.safetensors"))
    unknown = tmp_path / "unknown"
    shutil.copytree(model_folder, unknown)
    (unknown / "config.json").write_text('{"model_type": "no_such_type"}')
    for model, words in (
        (tmp_path / "nowhere", "no folder"),
        (without_tokenizer, "tokenizer"),
        (without_weights, "no weights"),
        (unknown, "no causal language model|no tokenizer can be loaded"),
    ):
        with pytest.raises(ConfigurationError, match=words) as caught:
            TrlTrainer().check(changed(config, model=str(model)))
        assert "\n" not in caught.value.message


def test_a_layer_that_the_model_lacks_is_named_with_those_that_it_has(config: SearchConfig) -> None:
    with pytest.raises(ConfigurationError, match="no linear layer 'query'") as caught:
        TrlTrainer().check(changed(config, configuration=replace(SMALL, target_modules="q_proj,query")))
    assert "q_proj" in caught.value.next_step


def test_hardware_that_contradicts_itself(config: SearchConfig) -> None:
    for hardware, words in ((Hardware(device="cuda"), "hardware.gpus"), (Hardware(vllm=True), "hardware.vllm")):
        with pytest.raises(ConfigurationError, match=words):
            TrlTrainer().check(changed(config, hardware=hardware))


def test_responses_that_the_model_has_no_room_for(config: SearchConfig) -> None:
    long = replace(SMALL, max_response_length=510)
    with pytest.raises(ConfigurationError, match="more than the model takes"):
        TrlTrainer().check(changed(config, configuration=long))


def with_rows(config: SearchConfig, tmp_path: Path, rows: list[dict[str, Any]]) -> SearchConfig:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return changed(config, task=config.task.model_copy(update={"train": file}))


def test_rows_that_cannot_be_used(config: SearchConfig, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "1+2"}]
    row = {"prompt": "1+2>", "answer": "3"}
    cases = [
        ([row] * 3, "only 3 training rows"),
        ([row] * 8 + [{"prompt": "1" * 1100, "answer": "1"}], "row 9 has 1100 tokens"),
        ([row] * 8 + [{"prompt": chat, "answer": "3"}], "make them all one"),
        ([{"prompt": chat, "answer": "3"}] * 8, "no chat template"),
    ]
    for rows, words in cases:
        with pytest.raises(ConfigurationError, match=words):
            TrlTrainer().check(with_rows(config, tmp_path, rows))


def test_a_reward_that_raises_is_found_before_the_search(config: SearchConfig, tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    return None\n")
    with pytest.raises(ConfigurationError):
        TrlTrainer().check(changed(config, task=config.task.model_copy(update={"reward": reward})))


def test_extras_that_are_not_installed_are_named(config: SearchConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "vllm" else object())
    with pytest.raises(MissingDependencyError, match="vllm") as caught:
        TrlTrainer().check(changed(config, hardware=Hardware(device="cuda", gpus=1, vllm=True)))
    assert "llmzero-hpc[vllm]" in caught.value.next_step


@pytest.mark.training
def test_messages_go_through_the_models_chat_template(
    config: SearchConfig, model_folder: Path, tmp_path: Path, make_spec: Any
) -> None:
    from llmzero_hpc.tasks.base import Row
    from llmzero_hpc.trainers.trl.model import load_tokenizer, prompt_tokens

    chatty = tmp_path / "chatty"
    shutil.copytree(model_folder, chatty)
    (chatty / "chat_template.jinja").write_text(CHAT)
    rows = [{"prompt": [{"role": "user", "content": f"{n}+2"}], "answer": "3"} for n in range(8)]
    conversational = changed(with_rows(config, tmp_path, rows), model=str(chatty))
    task = conversational.task.model_copy(update={"validation": conversational.task.train, "test": None})
    TrlTrainer().check(changed(conversational, task=task))

    tokenizer = load_tokenizer(chatty)
    message = Row(({"role": "user", "content": "7+2"},), "9", "x")
    assert prompt_tokens(tokenizer, [message, Row("7+2>", "9", "x")]) == [tokenizer("7+2>")["input_ids"]] * 2
    rows_of_metrics = metrics(run(make_spec(model=str(chatty), task=task, total_steps=1)))
    assert rows_of_metrics[1]["reward_mean"] > 0


def test_trainers_are_made_by_name() -> None:
    assert make_trainer("trl").name == "trl"
    assert not make_trainer("trl").simulated
    with pytest.raises(ConfigurationError, match="'other' is unknown"):
        make_trainer("other")
