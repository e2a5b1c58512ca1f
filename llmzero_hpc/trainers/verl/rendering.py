"""From the specification of a phase, or of an evaluation, to VeRL's settings: pure but for the model's `config.json`.

VeRL 0.9.1 has settings that do nothing (`actor.grad_clip`, `actor.clip_ratio`): the table of hyperparameters names
those that count.
"""

from __future__ import annotations

import hashlib
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.tasks.models import resolve_model
from llmzero_hpc.trainers.verl.batch import step_shape, uses_bfloat16, uses_cuda
from llmzero_hpc.trainers.verl.hydra_text import assignment
from llmzero_hpc.trainers.verl.layout import REWARD_FUNCTION, REWARD_MODULE
from llmzero_hpc.trainers.verl.model_shape import read_model_shape
from llmzero_hpc.trainers.verl.overrides import ACTOR, MODEL, REFERENCE, ROLLOUT
from llmzero_hpc.trainers.verl.placement import Placement, longest_prompt, placed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmzero_hpc.sections import Hardware, TaskConfig
    from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec
    from llmzero_hpc.trainers.verl.hydra_text import Value
    from llmzero_hpc.trainers.verl.layout import Layout

    Settings = dict[str, Value]

TRAINING_LOOP: Final = "training"
VALIDATION_LOOP: Final = "validation"
"""Names of the agent loops in `Layout.agent_loops`; the rows say which is theirs."""
CPU_ROLLOUT_NAME: Final = "transformers_cpu"
_CPU_TRANSFORMERS: Final[Mapping[str, Value]] = MappingProxyType(
    {
        f"{ROLLOUT}.name": CPU_ROLLOUT_NAME,
        # So it is imported in every process that builds the model's configuration.
        f"{MODEL}.external_lib": "llmzero_hpc.trainers.verl.cpu.rollout",
    }
)
_CPU_VLLM: Final[Mapping[str, Value]] = MappingProxyType(
    {
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.enforce_eager": True,
        f"+{ROLLOUT}.enable_sleep_mode": False,
        # vLLM would take half of the memory for its cache, and fills all of it with zeros.
        f"+{ROLLOUT}.engine_kwargs.vllm.kv_cache_memory_bytes": 2**28,
    }
)


def rendered(spec: PhaseSpec, place: Layout) -> list[str]:
    """Hydra overrides of `python -m verl.trainer.main_ppo` that train a phase, or what is left of it.

    Raises:
        ConfigurationError: the model is not there, or the configuration cannot be divided as it would have to be.
    """
    return [assignment(key, value) for key, value in phase_settings(spec, place).items()]


def rendered_evaluation(spec: EvaluationSpec, place: Layout) -> list[str]:
    """Overrides that validate an adapter on `place.validation_rows` once, and do nothing else.

    Raises:
        ConfigurationError: the model or the adapter is not there.
    """
    return [assignment(key, value) for key, value in evaluation_settings(spec, place).items()]


def phase_settings(spec: PhaseSpec, place: Layout) -> Settings:
    """VeRL's settings of a phase by key. What a configuration overrides comes last."""
    configuration = spec.configuration
    limit = max(configuration.max_response_length, spec.validation_max_response_length)
    seed = phase_seed(spec.seed, spec.node)
    settings = _common(spec.model, spec.task, limit, spec.hardware, configuration, place, seed)
    settings |= _algorithm(configuration)
    settings |= {
        f"{MODEL}.lora_adapter_path": spec.parent_adapter,
        "trainer.total_training_steps": spec.total_steps,
        # An upper limit only: an epoch has at least one step.
        "trainer.total_epochs": spec.total_steps,
        "trainer.save_freq": spec.validate_every_steps,
        "trainer.test_freq": spec.validate_every_steps,
        "trainer.val_before_train": False,
        # The newest state of this very phase, where there is one; the parent comes in by its adapter alone.
        "trainer.resume_mode": "auto",
        # All of them: the mirror removes a state when its adapter is extracted and a newer one is complete.
        "trainer.max_actor_ckpt_to_keep": None,
        "trainer.project_name": spec.search,
        "trainer.experiment_name": f"{spec.node:04d}",
    }
    return settings | dict(configuration.overrides)


def evaluation_settings(spec: EvaluationSpec, place: Layout) -> Settings:
    """VeRL's settings of an evaluation by key."""
    adapter = _adapter_config(spec.adapter)
    try:
        rank, alpha, modules = int(adapter["r"]), int(adapter["lora_alpha"]), adapter["target_modules"]
        names = modules if isinstance(modules, str) else ",".join(sorted(modules))
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(f"{spec.adapter}: adapter_config.json describes no LoRA adapter") from None
    workers = max(1, spec.hardware.gpus, spec.hardware.nodes)
    # Nothing is trained, but VeRL divides a batch all the same.
    configuration = Configuration(
        max_response_length=spec.max_response_length,
        batch_size=workers,
        mini_batches=1,
        rollouts=1,
        lora_rank=rank,
        lora_alpha=alpha,
        target_modules=names,
    )
    seed = phase_seed(spec.seed, spec.node)
    settings = _common(spec.model, spec.task, spec.max_response_length, spec.hardware, configuration, place, seed)
    settings |= _algorithm(configuration)
    return settings | {
        "data.train_files": place.validation_rows,
        f"{MODEL}.lora_adapter_path": spec.adapter,
        "trainer.total_training_steps": 1,
        "trainer.total_epochs": 1,
        "trainer.save_freq": -1,
        "trainer.test_freq": -1,
        "trainer.val_before_train": True,
        "trainer.val_only": True,
        "trainer.resume_mode": "disable",
        "trainer.project_name": spec.search,
        "trainer.experiment_name": f"{spec.split}_{spec.node:04d}_{spec.step}",
    }


def phase_seed(seed: int, node: int) -> int:
    """The seed of everything random in a phase."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{node}".encode()).digest()[:4]) >> 1


def _common(
    model: str,
    task: TaskConfig,
    limit: int,
    hardware: Hardware,
    configuration: Configuration,
    place: Layout,
    seed: int,
) -> Settings:
    """What a phase and an evaluation have in common: rows, model, processes, memory. `limit` is of any response."""
    folder = resolve_model(model)
    prompt = longest_prompt(task)
    try:
        shape = step_shape(configuration, hardware)
        placement = placed(hardware, configuration, read_model_shape(folder), prompt + limit)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    settings: Settings = {
        "data.train_files": place.train_rows,
        "data.val_files": place.validation_rows,
        "data.max_prompt_length": prompt,
        "data.max_response_length": limit,
        "data.train_batch_size": shape.prompts,
        "data.shuffle": True,
        "data.seed": seed,
        "data.truncation": "error",
        "data.dataloader_num_workers": 0,
        f"{MODEL}.path": folder,
        f"{MODEL}.lora_rank": configuration.lora_rank,
        f"{MODEL}.lora_alpha": configuration.lora_alpha,
        f"{MODEL}.target_modules": _target_modules(configuration.target_modules),
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.ppo_mini_batch_size": shape.mini_batch_prompts,
        f"{ACTOR}.data_loader_seed": seed,
        f"{ACTOR}.fsdp_config.seed": seed,
        f"+{ACTOR}.checkpoint.save_lora_only": True,
        f"{ACTOR}.checkpoint.save_contents": ["model", "optimizer", "extra"],
        f"{ROLLOUT}.n": configuration.rollouts,
        f"{ROLLOUT}.temperature": configuration.temperature,
        f"{ROLLOUT}.seed": seed,
        f"{ROLLOUT}.load_format": "safetensors",
        f"{ROLLOUT}.max_model_len": prompt + limit,
        f"{ROLLOUT}.val_kwargs.n": 1,
        f"{ROLLOUT}.val_kwargs.do_sample": False,
        f"{ROLLOUT}.val_kwargs.temperature": 0,
        f"{ROLLOUT}.agent.default_agent_loop": TRAINING_LOOP,
        f"{ROLLOUT}.agent.agent_loop_config_path": place.agent_loops,
        "reward.custom_reward_function.path": REWARD_MODULE,
        "reward.custom_reward_function.name": REWARD_FUNCTION,
        "+reward.custom_reward_function.reward_kwargs.task": place.task,
        "trainer.nnodes": placement.processes.machines,
        "trainer.n_gpus_per_node": placement.processes.on_each,
        "trainer.default_local_dir": place.states,
        "trainer.logger": ["console", "file"],
        # Hydra would leave a folder `outputs` wherever the command is started.
        "hydra.run.dir": place.folder,
        "hydra.output_subdir": None,
        "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH": place.metrics,
    }
    settings |= _passes(placement, shape.micro_batch) | _precision(hardware)
    return settings | (_gpu(placement) if uses_cuda(hardware) else _cpu(hardware))


def _algorithm(configuration: Configuration) -> Settings:
    """GRPO as the table describes it; the reference is the base model, with the adapter switched off."""
    return {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": configuration.advantage_normalization,
        "algorithm.use_kl_in_reward": False,
        f"{ACTOR}.optim.lr": configuration.learning_rate,
        f"{ACTOR}.optim.lr_scheduler_type": "constant",
        f"{ACTOR}.optim.lr_warmup_steps": -1,
        f"{ACTOR}.optim.lr_warmup_steps_ratio": 0.0,
        f"{ACTOR}.optim.clip_grad": configuration.gradient_clip,
        f"{ACTOR}.clip_ratio_low": configuration.clip_range,
        f"{ACTOR}.clip_ratio_high": configuration.clip_range,
        f"{ACTOR}.use_kl_loss": configuration.kl_coefficient > 0,
        f"{ACTOR}.kl_loss_coef": configuration.kl_coefficient,
        f"{ACTOR}.kl_loss_type": "low_var_kl",
        f"{ACTOR}.entropy_coeff": 0.0,
        f"{ACTOR}.loss_agg_mode": "token-mean",
    }


def _passes(placement: Placement, micro_batch: int | None) -> Settings:
    """How many responses one forward or backward pass takes."""
    if micro_batch is None:
        return {f"{ACTOR}.use_dynamic_bsz": True, f"{ACTOR}.ppo_max_token_len_per_gpu": placement.pass_tokens}
    return {
        f"{ACTOR}.use_dynamic_bsz": False,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": micro_batch,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": micro_batch,
        f"{REFERENCE}.log_prob_micro_batch_size_per_gpu": micro_batch,
    }


def _gpu(placement: Placement) -> Settings:
    return {
        "trainer.device": "cuda",
        f"{MODEL}.enable_gradient_checkpointing": placement.checkpointing,
        f"{MODEL}.use_remove_padding": True,
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.tensor_model_parallel_size": placement.tensor_parallel,
        f"{ROLLOUT}.gpu_memory_utilization": placement.utilization,
    }


def _cpu(hardware: Hardware) -> Settings:
    """One process on each machine; `cpu.platform` is loaded by the environment."""
    return {
        "trainer.device": "cpu",
        f"+{MODEL}.override_config.attn_implementation": "sdpa",
        f"{MODEL}.use_remove_padding": False,
        f"{MODEL}.enable_gradient_checkpointing": hardware.gradient_checkpointing,
        f"{ACTOR}.use_torch_compile": False,
        f"{ACTOR}.fsdp_config.use_torch_compile": False,
        f"{ROLLOUT}.tensor_model_parallel_size": 1,
        f"{ROLLOUT}.free_cache_engine": False,
        f"{ROLLOUT}.agent.num_workers": 1,
        f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes": 16,
        "reward.num_workers": 1,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        "trainer.v1.sampler.custom_sampler.path": "pkg://llmzero_hpc.trainers.verl.cpu.replay",
        "trainer.v1.sampler.custom_sampler.name": "QuickReplay",
        **(_CPU_VLLM if hardware.vllm else _CPU_TRANSFORMERS),
    }


def _precision(hardware: Hardware) -> Settings:
    """The type that is computed in; the shards of weights and adapter are float32 in any case."""
    computed = "bf16" if uses_bfloat16(hardware) else "fp32"
    section = f"+{ACTOR}.fsdp_config.mixed_precision"
    return {
        f"{section}.param_dtype": computed,
        f"{section}.reduce_dtype": "fp32",
        f"{section}.buffer_dtype": "fp32",
        f"{ROLLOUT}.dtype": "bfloat16" if uses_bfloat16(hardware) else "float32",
    }


def _target_modules(modules: str) -> str | list[str]:
    names = [name.strip() for name in modules.split(",")]
    return names[0] if names == ["all-linear"] else names


def _adapter_config(adapter: Path) -> dict[str, Any]:
    path = adapter / "adapter_config.json"
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} is not there or cannot be read")
    return found
