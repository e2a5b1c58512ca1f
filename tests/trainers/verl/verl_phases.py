"""A tiny Qwen2 with random weights, a toy task, and phases of them that run as their jobs would run them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tiny_phases import REWARD, write_files_task

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.errors import INFRASTRUCTURE_EXIT_CODES
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.store.metrics_log import MetricsReader, read_series
from llmzero_hpc.store.phase_directory import AttemptDirectory, PhaseDirectory
from llmzero_hpc.trainers.checkpoints import checkpoint_path, complete_checkpoints
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.verl.trainer import VerlTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.search.metrics import MetricRow
    from llmzero_hpc.sections import FilesTask
    from llmzero_hpc.trainers.base import LaunchPlan, PhaseSpec

ROOT = Path(__file__).parents[3]
MOST_ATTEMPTS = SearchConfig.model_fields["max_attempts"].default
SMALL = Configuration(
    max_response_length=6,
    rollouts=4,
    learning_rate=3e-3,
    kl_coefficient=0.001,
    batch_size=4,
    mini_batches=2,
    epochs=1.0,
    lora_rank=4,
    lora_alpha=8,
)


def build_model(folder: Path, width: int = 32) -> Path:
    """A Qwen2 of two narrow layers with a tokenizer of single bytes, which is what transformers expects of Qwen2.

    vLLM on a CPU takes widths from 64 on: heads may not be narrower than 32.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {text: number for number, text in enumerate(special + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106 - no password
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'][0] }}{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>a{% endif %}"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=vocabulary["<|im_end|>"],
        pad_token_id=0,
    )
    Qwen2ForCausalLM(shape).save_pretrained(folder)
    return folder


def write_task(folder: Path, reward: str = REWARD) -> FilesTask:
    """Additions of digits; two subtasks, of which one has twice the rows of the other."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"{a}+{b}="}],
            "answer": str(a + b),
            "data_source": "even/sums" if a % 3 == 0 else "odd",
        }
        for a in range(6)
        for b in range(6)
    ]
    folder.mkdir(exist_ok=True)
    parts = {"train": rows[:24], "validation": rows[18:30], "test": rows[30:]}
    return write_files_task(folder, parts, reward, max_prompt_length=32)


def attempt_of(spec: PhaseSpec, number: int = 1) -> AttemptDirectory:
    attempt = PhaseDirectory(spec.checkpoints.parent).attempt(number)
    attempt.create()
    return attempt


def started(spec: PhaseSpec, python: str, attempt: int = 1) -> subprocess.Popen[bytes]:
    """The command of a phase, as its job would run it."""
    folder, own = PhaseDirectory(spec.checkpoints.parent), attempt_of(spec, attempt)
    write_specification(folder.specification, spec)
    return launched(VerlTrainer().plan(folder.specification, own.path), python, own)


def launched(plan: LaunchPlan, python: str, attempt: AttemptDirectory) -> subprocess.Popen[bytes]:
    """A plan as a process, in a Python that has VeRL."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "LLMZERO_"))}
    environment |= {"PYTHONPATH": str(ROOT), **plan.environment}
    with attempt.trainer_log.open("ab") as log:
        return subprocess.Popen(
            [python, *plan.command[1:]], env=environment, cwd=attempt.path, stdout=log, stderr=subprocess.STDOUT
        )


def tried(start: Callable[[int], subprocess.Popen[bytes]], number: int, seconds: float) -> tuple[int, int]:
    """The number and the exit code of the first attempt, from `number` on, that the infrastructure did not end.

    As the controller has it, which gives up after as many.
    """
    for attempt in range(number, number + MOST_ATTEMPTS):
        exit_code = start(attempt).wait(timeout=seconds)
        if exit_code not in INFRASTRUCTURE_EXIT_CODES:
            break
    return attempt, exit_code


def said(attempt: AttemptDirectory) -> str:
    """The end of a trainer's log."""
    return attempt.trainer_log.read_text(errors="replace")[-6000:]


def rows_of(spec: PhaseSpec, attempts: int = 1) -> dict[int, MetricRow]:
    """Rows by step, as readers see them."""
    paths = [attempt_of(spec, number).metrics for number in range(1, attempts + 1)]
    return {row.step: row for row in read_series(paths).rows}


def attempt_rows(spec: PhaseSpec, number: int) -> list[int]:
    """The steps that one attempt wrote rows of."""
    return [row.step for row in MetricsReader(attempt_of(spec, number).metrics).new_rows()]


def weights_of(spec: PhaseSpec) -> dict[int, bytes]:
    """The weights of all complete checkpoints."""
    return weights_in(spec.checkpoints)


def weights_in(checkpoints: Path) -> dict[int, bytes]:
    """The weights of all complete checkpoints in a folder."""
    return {
        step: (checkpoint_path(checkpoints, step) / "adapter_model.safetensors").read_bytes()
        for step in complete_checkpoints(checkpoints)
    }
