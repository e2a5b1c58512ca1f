"""Adapters of the rehearsal: the files of a PEFT adapter without a weight, the made-up policy in their header."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.trainers.checkpoints import whole_folder
from llmzero_hpc.trainers.rehearsal.simulation import CHAINS, FILES, Policy, Surface

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.sections import TaskConfig
    from llmzero_hpc.trainers.base import PhaseSpec

_LENGTH = struct.Struct("<Q")


def surface_of(task: TaskConfig) -> Surface:
    """The response surface that stands in for a task."""
    return CHAINS if task.name == "chains" else FILES


def save_adapter(folder: Path, policy: Policy, spec: PhaseSpec) -> None:
    """Write a checkpoint; it has its name when it is whole."""
    configuration = spec.configuration
    description = {
        "simulated": True,
        "peft_type": "LORA",
        "base_model_name_or_path": spec.model,
        "r": configuration.lora_rank,
        "lora_alpha": configuration.lora_alpha,
        "target_modules": configuration.target_modules,
    }
    # A safetensors file with no tensors: its header is all there is, and readers of the format accept it.
    header = json.dumps({"__metadata__": {"simulated": "true", "policy": json.dumps(asdict(policy))}}).encode()
    with whole_folder(folder) as unfinished:
        (unfinished / "adapter_config.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        (unfinished / "adapter_model.safetensors").write_bytes(_LENGTH.pack(len(header)) + header)


def load_adapter(folder: Path) -> Policy:
    """The policy of a checkpoint.

    Raises:
        ConfigurationError: this is no adapter of a rehearsal.
    """
    try:
        content = (folder / "adapter_model.safetensors").read_bytes()[_LENGTH.size :]
        return Policy(**json.loads(json.loads(content)["__metadata__"]["policy"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{folder} holds no adapter of a rehearsal", "a rehearsal continues only what a rehearsal made"
        ) from None


def say(text: str) -> None:
    """A line of the trainer's log."""
    print(text, flush=True)  # noqa: T201 - the standard output of a job is its log
