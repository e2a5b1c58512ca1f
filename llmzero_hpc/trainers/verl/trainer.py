"""The VeRL trainer as the controller sees it: light, until it is asked to check a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.files import check_on_samples
from llmzero_hpc.tasks.models import BUILTIN_CHAINS, resolve_model
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.base import Trainer
from llmzero_hpc.trainers.specification import read_evaluation, read_phase
from llmzero_hpc.trainers.verl import overrides, pins
from llmzero_hpc.trainers.verl.batch import step_shape, uses_cuda
from llmzero_hpc.trainers.verl.launch import launch_plan
from llmzero_hpc.trainers.verl.layout import Layout
from llmzero_hpc.trainers.verl.model_shape import read_model_shape
from llmzero_hpc.trainers.verl.placement import longest_prompt, placed

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.sections import Hardware
    from llmzero_hpc.trainers.base import LaunchPlan, PhaseSpec

_LONGEST_LORA_RANK: Final = 512
"""Of vLLM."""
_HEADS: Final = frozenset({"lm_head", "embed_tokens"})


class VerlTrainer(Trainer):
    """GRPO by VeRL 0.9.1: LoRA, FSDP2 and vLLM on the GPUs of any number of machines, or on their CPUs."""

    name: ClassVar[str] = "verl"

    def check(self, config: SearchConfig) -> None:
        """See the base class. Loads tokenizer and rows, and lets VeRL itself read what a first phase would be told."""
        _check_hardware(config.hardware)
        pins.check_installed(gpu=uses_cuda(config.hardware), vllm=config.hardware.vllm)
        resolve_model(config.model)
        if found := self.problems(config, config.configuration):
            raise ConfigurationError("configuration." + found[0])
        check_on_samples(load_task(config.task))
        from llmzero_hpc.trainers.verl.preflight import check_phase

        check_phase(config)

    def problems(self, config: SearchConfig, configuration: Configuration) -> list[str]:
        """See the base class. Reads the model's `config.json`, for its sizes."""
        found = overrides.problems(configuration.overrides)
        found += _module_problems(configuration.target_modules)
        if found:
            return found
        hardware = config.hardware
        uses_vllm = uses_cuda(hardware) or hardware.vllm
        if uses_vllm and configuration.lora_rank > _LONGEST_LORA_RANK:
            return [f"lora_rank: {configuration.lora_rank} is above {_LONGEST_LORA_RANK}, the highest that vLLM takes"]
        limit = max(configuration.max_response_length, config.validation_max_response_length(configuration))
        prompt = longest_prompt(config.task)
        model = None if config.model == BUILTIN_CHAINS else read_model_shape(resolve_model(config.model))
        if model is not None and model.longest_sequence is not None and prompt + limit > model.longest_sequence:
            room = model.longest_sequence
            return [f"max_response_length: {limit} tokens after a prompt of {prompt} are more than the model's {room}"]
        try:
            step_shape(configuration, hardware)
            placement = placed(hardware, configuration, model, prompt + limit)
        except ValueError as error:
            return [str(error)]
        if placement.estimate is None or hardware.gpu_memory_gb is None:
            return []
        problem = placement.estimate.problem(hardware.gpu_memory_gb)
        return [f"max_response_length: {limit} tokens do not fit: {problem}"] if problem else []

    def train_rows(self, config: SearchConfig) -> int:
        """See the base class."""
        return len(load_task(config.task).rows(Split.TRAIN))

    def plan(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """See the base class. A Ray cluster of all machines runs beside the command."""
        hardware = read_phase(spec_file).hardware
        return launch_plan("llmzero_hpc.trainers.verl.run", spec_file, attempt_directory, hardware)

    def framework_command(self, spec: PhaseSpec, attempt_directory: Path) -> tuple[str, ...]:
        """See the base class. Where the job has no Ray of its own, its settings are added."""
        from llmzero_hpc.trainers.verl.child import command_with
        from llmzero_hpc.trainers.verl.rendering import rendered

        place = Layout.of_run(spec.training_state, AttemptDirectory(attempt_directory))
        return command_with(rendered(spec, place))

    def plan_evaluation(self, spec_file: Path, attempt_directory: Path) -> LaunchPlan:
        """See the base class."""
        hardware = read_evaluation(spec_file).hardware
        return launch_plan("llmzero_hpc.trainers.verl.evaluate", spec_file, attempt_directory, hardware)


def _check_hardware(hardware: Hardware) -> None:
    if hardware.device == "cuda" and not hardware.gpus:
        raise ConfigurationError("hardware.gpus: 0, but device is cuda", "say how many GPUs a phase takes")
    if hardware.deepspeed_stage:
        raise ConfigurationError(
            f"hardware.deepspeed_stage: {hardware.deepspeed_stage}, but VeRL trains with FSDP2", "leave it out"
        )


def _module_problems(modules: str) -> list[str]:
    names = {name.strip() for name in modules.split(",")}
    if "" in names or (len(names) > 1 and "all-linear" in names):
        return ["target_modules: 'all-linear', or names joined by commas"]
    if heads := names & _HEADS:
        return [f"target_modules: {', '.join(sorted(heads))} cannot carry an adapter here"]
    return []
