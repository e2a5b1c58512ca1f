"""The releases that this trainer was made for, and whether the environment has them.

VeRL's settings, file formats and inner names change between releases. What stands here is what constraints/verl-cpu.txt
and constraints/verl-gpu.txt hold; everything else of theirs may differ.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from llmzero_hpc.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BOTH: Final[Mapping[str, str]] = MappingProxyType(
    {"verl": "==0.9.1", "TransferQueue": ">=0.1.10", "tensordict": ">=0.8,<=0.10,!=0.9", "peft": ">=0.18,<0.21"}
)
"""Needed anywhere. VeRL without its extra `verl-core` lacks TransferQueue; newer releases of peft lose LoRA weights."""
CPU: Final[Mapping[str, str]] = MappingProxyType({"transformers": ">=5.5.3,<5.11", "torch": ">=2.11", "ray": ">=2.60"})
CPU_VLLM: Final[Mapping[str, str]] = MappingProxyType({"vllm": "==0.27.1"})
"""Where vLLM generates on CPUs: under this name, whatever its build is called."""
GPU: Final[Mapping[str, str]] = MappingProxyType(
    {"transformers": "==5.9.0", "torch": "==2.11.0", "vllm": "==0.24.0", "flash-attn": ">=2.8", "ray": ">=2.60"}
)
"""As VeRL's extra `vllm` has them; flash-attn is for training without padding."""


def mismatches(*, gpu: bool, vllm: bool = False, installed: Callable[[str], str] = version) -> list[str]:
    """Each package that is missing or of another release, as `peft 0.21.1 (needed: >=0.18,<0.21)`.

    `vllm`: it generates, also where there is no GPU.
    """
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # everything needed here needs it as well
        return ["packaging is not installed"]
    found = []
    own_needs = GPU if gpu else {**CPU, **CPU_VLLM} if vllm else CPU
    for name, wanted in {**BOTH, **own_needs}.items():
        try:
            own = installed(name)
        except PackageNotFoundError:
            found.append(f"{name} is not installed (needed: {wanted})")
            continue
        if not SpecifierSet(wanted).contains(own, prereleases=True):
            found.append(f"{name} {own} (needed: {wanted})")
    return found


def check_installed(*, gpu: bool, vllm: bool = False) -> None:
    """Look whether this environment is what the trainer needs.

    Raises:
        MissingDependencyError: it is not; the message names each mismatch, the next step what to install.
    """
    found = mismatches(gpu=gpu, vllm=vllm)
    if found:
        install = "pip install -c constraints/verl-cpu.txt 'llmzero-hpc[verl]'"
        if gpu:
            install = "pip install -c constraints/verl-gpu.txt 'llmzero-hpc[verl-gpu]'"
        elif vllm:
            install = "sh tests/install_verl.sh FOLDER"
        raise MissingDependencyError(
            "the verl trainer cannot run in this environment: " + "; ".join(found), f"{install} (docs/verl.md)"
        )
