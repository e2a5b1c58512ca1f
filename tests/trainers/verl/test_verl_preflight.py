"""Whether a search can run is found out by VeRL itself, before a job is queued: settings, dataset, reward, adapter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.store.phase_directory import PhaseDirectory
from llmzero_hpc.tasks.chains.tokenizer import make_tokenizer
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.verl.preflight import first_phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.verl, pytest.mark.slow]
TINY = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., SearchConfig]:
    """Makes a search over forty rows of a tiny model; keys of its settings and its files may be changed."""
    model = tmp_path / "model"
    make_tokenizer().save_pretrained(model)
    (model / "config.json").write_text(json.dumps(TINY))
    (model / "model.safetensors").write_bytes(b"weights are not read")

    def make(prompt: Any = "4+9+8>", reward: str = "return 1.0", **configuration: Any) -> SearchConfig:
        rows = "".join(json.dumps({"prompt": prompt, "answer": "21"}) + "\n" for _ in range(40))
        for name in ("train", "validation"):
            (tmp_path / f"{name}.jsonl").write_text(rows)
        (tmp_path / "reward.py").write_text(
            f"def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    {reward}\n"
        )
        small = {"max_response_length": 16, "batch_size": 8, "rollouts": 4, "lora_rank": 8, "lora_alpha": 16}
        files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation")}
        return SearchConfig.model_validate(
            {
                "name": "tiny",
                "trainer": "verl",
                "model": str(model),
                "task": {"name": "files", "reward": str(tmp_path / "reward.py"), "max_prompt_length": 8, **files},
                "configuration": small | configuration,
                "hardware": {"device": "cpu"},
            }
        )

    return make


def said(config: SearchConfig, folder: Path, in_verl: Callable[..., Any]) -> str:
    """What the check says, as `check_phase` runs it; nothing where all is well."""
    phase = PhaseDirectory(folder / "0000")
    phase.attempt(1).create()
    write_specification(phase.specification, first_phase(config, phase))
    module = "llmzero_hpc.trainers.verl.preflight"
    done = in_verl("-m", module, str(phase.specification), str(phase.attempt(1).path))
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert bool(done.returncode) == bool(lines), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return "\n".join(lines)


def test_a_search_that_can_run(
    search: Callable[..., SearchConfig], tmp_path: Path, in_verl: Callable[..., Any]
) -> None:
    assert said(search(), tmp_path, in_verl) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "1+1+1+1+1+1+1+1+1>"}, "the prompt of train row 1 has 10 tokens, more than 8"),
        ({"prompt": [{"role": "user", "content": "4+9"}]}, "error: model: "),
        ({"reward": "return 1.0 if solution_str else boom"}, "compute_score raised NameError"),
        ({"target_modules": "q_project"}, "error: target_modules: "),
        ({"batch_size": 64}, "64 prompts, but there are only 40 training rows"),
    ],
    ids=["prompt", "template", "reward", "modules", "rows"],
)
def test_one_that_cannot_is_told_why_in_one_line(
    changes: dict[str, Any],
    message: str,
    search: Callable[..., SearchConfig],
    tmp_path: Path,
    in_verl: Callable[..., Any],
) -> None:
    line = said(search(**changes), tmp_path, in_verl)
    assert message in line
    assert "\n" not in line
