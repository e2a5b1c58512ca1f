"""`python -m llmzero_hpc.trainers.verl.preflight <config.yaml> <folder>`: let VeRL itself read what a phase tells it.

Composes the settings as VeRL's own entry point would, runs its validation and builds its dataclasses, loads the rows
through its dataset, calls the reward through its loader, and shapes model and adapter without memory for the weights.
No Ray, no GPU; about ten seconds. It runs in a process of its own, whose environment is that of a phase.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmzero_hpc.errors import ConfigurationError, LLMZeroError
from llmzero_hpc.store.phase_directory import AttemptDirectory, PhaseDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.base import PhaseSpec
from llmzero_hpc.trainers.specification import read_phase, write_specification
from llmzero_hpc.trainers.verl.inputs import write_phase_inputs
from llmzero_hpc.trainers.verl.launch import launch_plan
from llmzero_hpc.trainers.verl.layout import Layout
from llmzero_hpc.trainers.verl.rendering import rendered
from llmzero_hpc.trainers.verl.tokens import prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.config import SearchConfig

_SAMPLES: Final = 3
_LORA_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM takes; VeRL rounds up to the next."""
_RESOLVED: Final = ("actor", "model", "rollout")


def check_phase(config: SearchConfig) -> None:
    """Check what the first phase of a search would tell VeRL.

    Raises:
        ConfigurationError: VeRL refuses it, or rows, reward and model do not fit together.
    """
    with tempfile.TemporaryDirectory(prefix="llmzero-hpc-") as scratch:
        folder = PhaseDirectory(Path(scratch).resolve() / "0000")
        attempt = folder.attempt(1)
        attempt.create()
        write_specification(folder.specification, first_phase(config, folder))
        plan = launch_plan(__name__, folder.specification, attempt.path, config.hardware)
        environment = {**os.environ, **plan.environment, "HF_DATASETS_CACHE": str(attempt.path)}
        done = subprocess.run(plan.command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"the check ended with exit code {done.returncode}"]
            marked = [number for number, line in enumerate(lines) if line.startswith("error: ")]
            message = lines[marked[-1]].removeprefix("error: ") if marked else lines[-1]
            raise ConfigurationError(message, "\n".join(lines[marked[-1] + 1 :]) if marked else "")


def first_phase(config: SearchConfig, folder: PhaseDirectory) -> PhaseSpec:
    """The specification of node 0, as far as it matters to VeRL."""
    rows = len(load_task(config.task).rows(Split.TRAIN))
    return PhaseSpec(
        search=config.name,
        node=0,
        seed=config.seed,
        model=config.model,
        task=config.task,
        configuration=config.configuration,
        first_step=1,
        total_steps=config.configuration.steps(rows),
        validate_every_steps=config.validate_every_steps,
        validation_max_response_length=config.validation_max_response_length(config.configuration),
        parent_adapter=None,
        checkpoints=folder.checkpoints,
        training_state=folder.training_state,
        hardware=config.hardware,
        rehearsal=config.rehearsal,
    )


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. What is wrong is one line on stderr."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec = read_phase(Path(arguments[0]))
            place = Layout.of_run(spec.training_state, AttemptDirectory(Path(arguments[1])))
            check(spec, place)
    except LLMZeroError as error:
        print(f"error: {error.message}", error.next_step, sep="\n", file=sys.stderr)  # noqa: T201 - for the caller
        return error.exit_code
    return 0


def check(spec: PhaseSpec, place: Layout) -> Any:
    """Everything that VeRL can be asked about a phase without training; returns its settings as VeRL resolved them.

    Raises:
        ConfigurationError: something does not fit; the message says what.
    """
    write_phase_inputs(spec, place)
    settings = composed(rendered(spec, place))
    parts = validated(settings)
    tokenizer = parts["model"].tokenizer
    _check_rows(settings, tokenizer)
    _check_reward(spec, settings)
    _check_adapter(parts["model"])
    return settings


def composed(overrides: Sequence[str]) -> Any:
    """The settings that overrides make of VeRL's own, with all references followed.

    Raises:
        ConfigurationError: Hydra refuses one of them.
    """
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            settings = compose("ppo_trainer", overrides=list(overrides))
        OmegaConf.resolve(settings)
    except (HydraException, OmegaConfBaseException) as error:
        raise _refusal(error) from None
    return settings


def validated(settings: Any) -> dict[str, Any]:
    """VeRL's dataclasses of actor, model and rollout, after its own validation of all settings.

    Raises:
        ConfigurationError: VeRL refuses them.
    """
    from hydra.errors import HydraException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    if importlib.util.find_spec("vllm") is None:
        _stand_in_for_vllm()
    try:
        validate_config(settings, need_reference_policy(settings), need_critic(settings))
        omega_conf_to_dataclass(settings.algorithm)
        return {name: omega_conf_to_dataclass(settings.actor_rollout_ref[name]) for name in _RESOLVED}
    except (AssertionError, ValueError, TypeError, OSError, HydraException) as error:
        raise _refusal(error) from None


def _stand_in_for_vllm() -> None:
    """VeRL's validation asks its vLLM module for one thing, which rounds a rank up; without vLLM the import fails."""
    import verl.workers.rollout as parent

    def get_vllm_max_lora_rank(lora_rank: int) -> int:
        if lora_rank > _LORA_RANKS[-1]:
            raise ValueError(f"lora_rank {lora_rank} is above {_LORA_RANKS[-1]}, the highest that vLLM takes")
        return next(rank for rank in _LORA_RANKS if lora_rank <= rank)

    package = types.ModuleType(f"{parent.__name__}.vllm_rollout")
    package.__path__ = []
    utilities = types.ModuleType(f"{package.__name__}.utils")
    vars(utilities)["get_vllm_max_lora_rank"] = get_vllm_max_lora_rank
    vars(package)["utils"] = utilities
    sys.modules[package.__name__], sys.modules[utilities.__name__] = package, utilities
    parent.vllm_rollout = package


def _check_rows(settings: Any, tokenizer: Any) -> None:
    from verl.trainer.ppo.utils import create_rl_dataset

    longest = int(settings.data.max_prompt_length)
    for split, files in ((Split.TRAIN, settings.data.train_files), (Split.VALIDATION, settings.data.val_files)):
        rows = create_rl_dataset(files, settings.data, tokenizer, None, is_train=split is Split.TRAIN, max_samples=-1)
        if not len(rows):
            raise ConfigurationError(f"task: there are no {split} rows")
        for number in range(len(rows)):
            try:
                tokens = prompt_tokens(tokenizer, rows[number]["raw_prompt"])
            except ValueError as error:  # no chat template
                raise ConfigurationError(f"model: {_line(error)}") from None
            if not tokens:
                raise ConfigurationError(f"task: the prompt of {split} row {number + 1} has no tokens")
            if len(tokens) > longest:
                raise ConfigurationError(
                    f"task: the prompt of {split} row {number + 1} has {len(tokens)} tokens, more than {longest}",
                    "shorten the prompt, or raise task.max_prompt_length",
                )


def _check_reward(spec: PhaseSpec, settings: Any) -> None:
    from verl.trainer.ppo.reward import get_custom_reward_fn

    reward = get_custom_reward_fn(settings)
    for split in (Split.TRAIN, Split.VALIDATION):
        for index, row in enumerate(load_task(spec.task).rows(split)[:_SAMPLES]):
            for response, truncated in ((row.ground_truth, False), ("", True)):
                where = {"split": split.value, "index": index, "truncated": truncated}
                reward(
                    data_source=row.data_source,
                    solution_str=response,
                    ground_truth=row.ground_truth,
                    extra_info=where,
                )


def _check_adapter(model: Any) -> None:
    """Build model and adapter on the meta device: names of layers that do not exist are found there."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = Path(model.local_path)
    if not any(folder.glob(pattern) for pattern in ("*.safetensors", "pytorch_model*.bin")):
        raise ConfigurationError(f"model: {folder} holds no weights (*.safetensors, pytorch_model*.bin)")
    modules = model.target_modules if isinstance(model.target_modules, str) else list(model.target_modules)
    try:
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(model.hf_config, attn_implementation="sdpa")
            get_peft_model(base, LoraConfig(r=1, target_modules=modules, task_type="CAUSAL_LM"))
    except (ValueError, KeyError, OSError) as error:
        raise ConfigurationError(f"target_modules: {_line(error)}") from None


def _refusal(error: Exception) -> ConfigurationError:
    # Hydra wraps what a dataclass raised; the first cause is what is wrong.
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return ConfigurationError(f"VeRL refuses the configuration: {_line(error)}", "see docs/verl.md")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
