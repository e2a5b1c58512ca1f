"""The command lines of phases and evaluations, and their environment."""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from llmzero_hpc.trainers.base import LaunchPlan
from llmzero_hpc.trainers.trl.arguments import uses_cuda

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmzero_hpc.sections import Hardware

_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "HF_HUB_OFFLINE": "1",
        "PYTHONHASHSEED": "0",  # sets of names end up in adapter_config.json
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }
)
_CPU_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        # Tensors come and go by the megabyte: glibc would return and fault in the same pages in every step.
        "MALLOC_MMAP_THRESHOLD_": "33554432",
        "MALLOC_TOP_PAD_": "67108864",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
    }
)


def launch_plan(module: str, specification: Path, attempt_directory: Path, hardware: Hardware) -> LaunchPlan:
    """Run a module of this package: alone, or once for each GPU through torch's launcher, as DeepSpeed wants too."""
    arguments = (module, str(specification), str(attempt_directory))
    processes = max(1, hardware.gpus)
    distributed = processes > 1 or (hardware.deepspeed_stage > 0 and uses_cuda(hardware))
    launcher: tuple[str, ...] = ()
    if distributed:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nnodes=1", f"--nproc-per-node={processes}")
    environment = dict(_ENVIRONMENT)
    environment["OMP_NUM_THREADS"] = str(hardware.threads)
    if not uses_cuda(hardware):
        environment |= _CPU_ENVIRONMENT
        if hardware.deepspeed_stage:
            environment |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
            environment["MASTER_PORT"] = "0"
    return LaunchPlan((sys.executable, *launcher, "-m", *arguments), environment)
