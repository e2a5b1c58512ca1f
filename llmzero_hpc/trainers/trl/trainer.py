"""The TRL trainer as the controller sees it: light, until it is asked to check a model."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final

from llmzero_hpc.errors import ConfigurationError, MissingDependencyError
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.models import resolve_model
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.base import Trainer
from llmzero_hpc.trainers.launch import launch_plan
from llmzero_hpc.trainers.rows import check_rows
from llmzero_hpc.trainers.specification import read_evaluation, read_phase
from llmzero_hpc.trainers.trl import overrides
from llmzero_hpc.trainers.trl.arguments import step_shape, uses_cuda

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.sections import Hardware
    from llmzero_hpc.trainers.base import LaunchPlan

_PACKAGES: Final = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
_WEIGHTS: Final = ("*.safetensors", "pytorch_model*.bin")
_HEADS: Final = frozenset({"lm_head", "embed_tokens"})


class TrlTrainer(Trainer):
    """GRPO by TRL with a PEFT adapter: CPU, one GPU, or several GPUs of one node with or without DeepSpeed ZeRO."""

    name: ClassVar[str] = "trl"

    def check(self, config: SearchConfig) -> None:
        """See the base class. Loads the tokenizer, the model's shape without its weights, and all rows."""
        _check_hardware(config.hardware)
        _check_packages(config.hardware)
        folder = resolve_model(config.model)
        found = self.problems(config, config.configuration)
        if found:
            raise ConfigurationError("configuration." + found[0])
        from llmzero_hpc.trainers.trl.model import load_tokenizer, prompt_tokens

        tokenizer = load_tokenizer(folder)
        longest = _check_model(folder, config.configuration.target_modules)
        check_rows(config, lambda rows: prompt_tokens(tokenizer, rows), longest)

    def problems(self, config: SearchConfig, configuration: Configuration) -> list[str]:
        """See the base class."""
        found = overrides.problems(configuration.overrides)
        names = {name.strip() for name in configuration.target_modules.split(",")}
        if "" in names or (len(names) > 1 and "all-linear" in names):
            found.append("target_modules: 'all-linear', or names joined by commas")
        if heads := names & _HEADS:
            found.append(f"target_modules: {', '.join(sorted(heads))} cannot carry an adapter here")
        if not found:
            try:
                step_shape(configuration, config.hardware)
            except ValueError as error:
                found.append(str(error))
        return found

    def train_rows(self, config: SearchConfig) -> int:
        """See the base class."""
        return len(load_task(config.task).rows(Split.TRAIN))

    def plan(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """See the base class."""
        hardware = read_phase(spec_file).hardware
        return launch_plan("llmzero_hpc.trainers.trl.train", spec_file, attempt_directory, hardware)

    def plan_evaluation(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """See the base class. Evaluations take one device."""
        hardware = read_evaluation(spec_file).hardware
        alone = hardware.model_copy(update={"gpus": min(1, hardware.gpus), "deepspeed_stage": 0})
        return launch_plan("llmzero_hpc.trainers.trl.evaluate", spec_file, attempt_directory, alone)


def _check_packages(hardware: Hardware) -> None:
    needed = [(name, "local") for name in _PACKAGES]
    needed += [("vllm", "vllm")] * hardware.vllm + [("deepspeed", "deepspeed")] * (hardware.deepspeed_stage > 0)
    for name, extra in needed:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"the trl trainer needs {name}, which is not installed", f"pip install 'llmzero-hpc[{extra}]'"
            )


def _check_hardware(hardware: Hardware) -> None:
    if hardware.device == "cuda" and not hardware.gpus:
        raise ConfigurationError("hardware.gpus: 0, but device is cuda", "say how many GPUs a phase takes")
    if hardware.vllm and not uses_cuda(hardware):
        raise ConfigurationError("hardware.vllm: needs GPUs", "leave it out on a CPU")


def _check_model(folder: Path, target_modules: str) -> int:
    """Build the model without memory for its weights and look for the target modules; its longest sequence, tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if not any(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        raise ConfigurationError(f"model: {folder} holds no weights ({', '.join(_WEIGHTS)})")
    try:
        with torch.device("meta"):
            shape: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_config(shape)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"model: {folder} is no causal language model known here: {reason}") from None
    known = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    for name in target_modules.split(","):
        if target_modules != "all-linear" and name.strip().rsplit(".", 1)[-1] not in known:
            raise ConfigurationError(
                f"configuration.target_modules: the model has no linear layer {name.strip()!r}",
                f"it has {', '.join(sorted(known - _HEADS))}",
            )
    return int(getattr(shape.get_text_config(), "max_position_embeddings", None) or sys.maxsize)
