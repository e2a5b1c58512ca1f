"""Loading what a phase trains: the base model, its tokenizer, and the adapter, new or from a checkpoint."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.trainers.checkpoints import ADAPTER_FILES, is_adapter, unfinished_path, whole_folder
from llmzero_hpc.trainers.steps import step_seed
from llmzero_hpc.trainers.trl.arguments import lora_arguments, uses_bfloat16, uses_cuda

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llmzero_hpc.sections import Hardware
    from llmzero_hpc.tasks.base import Row
    from llmzero_hpc.trainers.base import PhaseSpec

_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, padding on the left.

    Raises:
        ConfigurationError: it cannot be loaded or has no end token.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        # transformers would make an empty one from the model's type.
        raise ConfigurationError(f"model: {folder} holds no tokenizer ({', '.join(_TOKENIZER_FILES)})")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"model: no tokenizer can be loaded from {folder}: {_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"model: the tokenizer of {folder} has no end token (eos_token)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(folder: Path, hardware: Hardware) -> Any:
    """The base model on the CPU, in the precision of the hardware; whoever trains it moves it.

    Raises:
        ConfigurationError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if uses_bfloat16(hardware) else torch.float32
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"model: {folder} cannot be loaded: {_line(error)}") from None


def with_adapter(base: Any, adapter: Path | None, spec: PhaseSpec) -> Any:
    """`base` with the adapter of a checkpoint, ready to train, or with a new one where `adapter` is None.

    Raises:
        ConfigurationError: the adapter cannot be loaded, or its target modules are not in the model.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    # ZeRO 3 gathers parameters into buffers of one type, so that float32 adapters on a bfloat16 base break it.
    one_type = spec.hardware.deepspeed_stage == 3  # noqa: PLR2004 - ZeRO's name
    if adapter is not None:
        return with_trained_adapter(base, adapter, trainable=True, one_type=one_type)
    torch.manual_seed(step_seed(spec.seed, spec.node, 0))
    try:
        lora = LoraConfig(**lora_arguments(spec.configuration))
        return get_peft_model(base, lora, autocast_adapter_dtype=not one_type)
    except ValueError as error:
        raise ConfigurationError(f"target_modules: {_line(error)}") from None


def with_trained_adapter(base: Any, adapter: Path, *, trainable: bool, one_type: bool = False) -> Any:
    """`base` with the adapter of a checkpoint; its weights are float32, with `one_type` of the type of the base.

    Raises:
        ConfigurationError: the adapter is not there or does not fit the model.
    """
    from peft import PeftModel

    if not is_adapter(adapter):
        raise ConfigurationError(f"{adapter} holds no adapter ({' and '.join(ADAPTER_FILES)})")
    try:
        return PeftModel.from_pretrained(base, adapter, is_trainable=trainable, autocast_adapter_dtype=not one_type)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ConfigurationError(f"the adapter {adapter} does not fit the model: {_line(error)}") from None


def save_adapter(model: Any, folder: Path, *, main: bool, sharded: bool) -> None:
    """Write the adapter of a PEFT model; all processes call it, the main one writes.

    Args:
        model: without its wrappers.
        folder: there already.
        main: this process writes.
        sharded: its weights are spread over the processes (ZeRO 3) and have to be gathered.
    """
    gathered: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if sharded:
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters([p for p in model.parameters() if p.requires_grad])
    with gathered:
        if main:
            model.save_pretrained(folder, selected_adapters=["default"])
            (folder / "README.md").unlink(missing_ok=True)


def save_together(accelerator: Any, target: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder from all processes; the main one makes it and gives it its name when all are done.

    Raises:
        StorageError: the file system refused.
    """
    if accelerator.is_main_process:
        with whole_folder(target) as folder:
            accelerator.wait_for_everyone()
            fill(folder)
            accelerator.wait_for_everyone()
    else:
        accelerator.wait_for_everyone()
        fill(unfinished_path(target))
        accelerator.wait_for_everyone()
    accelerator.wait_for_everyone()


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a response: those of the model's generation settings and the tokenizer's."""
    declared = model.generation_config.eos_token_id
    listed = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    return listed if tokenizer.eos_token_id in listed else [tokenizer.eos_token_id, *listed]


def prompt_tokens(tokenizer: Any, rows: Sequence[Row]) -> list[list[int]]:
    """Tokens of prompts, as TRL reads them: text as it is, messages through the chat template.

    Raises:
        ConfigurationError: there are messages, but the tokenizer has no chat template.
    """
    tokens: list[list[int]] = []
    for row in rows:
        if isinstance(row.prompt, str):
            tokens.append(tokenizer(row.prompt)["input_ids"])
            continue
        if not tokenizer.chat_template:
            raise ConfigurationError("model: prompts are messages, but its tokenizer has no chat template")
        messages = [dict(message) for message in row.prompt]
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        tokens.append(rendered["input_ids"])
    return tokens


def device_of(hardware: Hardware) -> str:
    """Where one process evaluates.

    Raises:
        ConfigurationError: a GPU is asked for and there is none.
    """
    import torch

    if not uses_cuda(hardware):
        return "cpu"
    if not torch.cuda.is_available():
        raise ConfigurationError("hardware: GPUs are asked for, but none can be used here")
    return "cuda"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
