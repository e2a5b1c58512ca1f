"""The command lines of phases and evaluations, and the environment of all their processes."""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from llmzero_hpc.trainers.base import LaunchPlan
from llmzero_hpc.trainers.verl.batch import uses_cuda

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmzero_hpc.sections import Hardware

_PLUGIN: Final = "llmzero_hpc.trainers.verl.plugin"
_CPU_PLATFORM: Final = "llmzero_hpc.trainers.verl.cpu.platform"
_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "RAY_DEDUP_LOGS": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "WANDB_MODE": "disabled",
    }
)
_GPU_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({"VERL_USE_EXTERNAL_MODULES": _PLUGIN})
_CPU_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "VERL_USE_EXTERNAL_MODULES": f"{_PLUGIN},{_CPU_PLATFORM}",
        # VeRL's engines are registered for accelerators only; that for CUDA runs on a CPU as well.
        "VERL_ENGINE_DEVICE": "cuda",
        # One training process on each machine: VeRL counts GPUs, and Ray starts with what is said here.
        "LLMZERO_RAY_GPUS": "1",
        # Ray takes it for one GPU, CUDA for none; submitit leaves it empty, and then Ray refuses to make one up.
        "CUDA_VISIBLE_DEVICES": "-1",
        # VeRL's actors reserve more CPUs than they use, and a laptop has: they would wait for them for ever.
        "LLMZERO_RAY_CPUS": "32",
        # Ray would end processes of a job when others have filled the machine's memory.
        "RAY_memory_monitor_refresh_ms": "0",
        # Ray's processes would give way to everything else on these cores, at a niceness of 15: a phase starves where
        # others are at work, and it is the only work of its job.
        "RAY_worker_niceness": "0",
        # Each of vLLM's servers would take the same cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
)


def launch_plan(module: str, specification: Path, attempt_directory: Path, hardware: Hardware) -> LaunchPlan:
    """Run a module of this package on the first machine, beside a Ray cluster of all of them."""
    environment = dict(_ENVIRONMENT) | dict(_GPU_ENVIRONMENT if uses_cuda(hardware) else _CPU_ENVIRONMENT)
    environment["OMP_NUM_THREADS"] = str(hardware.threads)
    command = (sys.executable, "-m", module, str(specification), str(attempt_directory))
    return LaunchPlan(command, environment, ray=True)
