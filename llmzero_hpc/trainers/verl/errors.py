"""Why a run failed, told from the end of its log by what torch, vLLM, Ray and VeRL print; those lines are the proof."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from llmzero_hpc.errors import ClusterError, ConfigurationError, LLMZeroError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

LOG_TAIL_BYTES: Final = 256 * 1024
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_RAISED: Final = re.compile(r"^[\w.]*(?:Error|Exception)\b: .{1,300}", re.MULTILINE)
"""The last line of a traceback."""
_EVIDENCE_LINES: Final = 3
_EVIDENCE_LENGTH: Final = 300


class Cause(StrEnum):
    """What ended a run."""

    DISK_FULL = "disk_full"
    REWARD = "reward"
    GPU_MEMORY = "gpu_memory"
    KV_CACHE = "kv_cache"
    NOT_FINITE = "not_finite"
    CHAT_TEMPLATE = "chat_template"
    LONG_PROMPT = "long_prompt"
    HOST_MEMORY = "host_memory"
    COMMUNICATION = "communication"
    ACTOR_DIED = "actor_died"


class Origin(StrEnum):
    """Where a cause lies: trying again as it is helps for the infrastructure alone."""

    CONFIGURATION = "configuration"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a run failed.

    Attributes:
        cause: what ended it.
        origin: whether the same run may work at another time.
        message: one line for people.
        next_step: what can be done.
        evidence: lines of the log that say so, in their order; at least one.
    """

    cause: Cause
    origin: Origin
    message: str
    next_step: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Signature:
    cause: Cause
    origin: Origin
    message: str
    next_step: str
    pattern: re.Pattern[str]


def _any_of(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_SIGNATURES: Final = (
    _Signature(
        Cause.DISK_FULL, Origin.INFRASTRUCTURE, "the disk is full or over quota",
        "free some space; the phase goes on where it was",
        _any_of(r"no space left on device", r"disk quota exceeded", r"\[errno (?:28|122)\]",
                r"inline_container\.cc.*unexpected pos", r"PytorchStreamWriter failed writing file"),
    ),
    _Signature(
        Cause.REWARD, Origin.CONFIGURATION, "the reward function raised an error or returned no number",
        "mend the reward function",
        _any_of(r"\bcompute_score (?:raised|returned)\b", r"ConfigurationError: .*\breward\b"),
    ),
    _Signature(
        Cause.KV_CACHE, Origin.CONFIGURATION, "the memory left to vLLM does not hold one response of full length",
        "lower max_response_length, or raise hardware.vllm_memory_utilization",
        _any_of(r"no available memory for the cache blocks",
                r"to serve at least one request with the models?'?s? max(?:imum)? seq(?:uence)? len",
                r"larger than the (?:maximum number of tokens that can be stored in|available) KV cache"),
    ),
    _Signature(
        Cause.GPU_MEMORY, Origin.CONFIGURATION, "a GPU ran out of memory",
        "lower batch_size or max_response_length, or hardware.micro_batch_size",
        _any_of(r"CUDA out of memory", r"torch\.(?:cuda\.)?OutOfMemoryError", r"CUDA error: out of memory",
                r"CUBLAS_STATUS_ALLOC_FAILED", r"free memory on device .* is less than desired GPU memory utilization"),
    ),
    _Signature(
        Cause.NOT_FINITE, Origin.CONFIGURATION, "a probability, a loss or a gradient is not finite any more",
        "lower learning_rate or gradient_clip",
        _any_of(r"probability tensor contains either", r"^alarm: .*not a finite number",
                r"WARN: rank \d+ grad_norm is not finite", r"\b(?:loss|grad_norm) is (?:nan|inf|not finite)\b"),
    ),
    _Signature(
        Cause.CHAT_TEMPLATE, Origin.CONFIGURATION, "prompts do not fit the model's tokenizer or its chat template",
        "use a tokenizer with a chat template for these roles, or prompts of plain text",
        _any_of(r"tokenizer\.chat_template is not set", r"jinja2\.exceptions\.\w*Error",
                r"conversation roles must alternate", r"apply_chat_template.*(?:error|fail)",
                r"has no chat template", r"tokenizer class .* does not exist", r"can't load tokenizer for"),
    ),
    _Signature(
        Cause.LONG_PROMPT, Origin.CONFIGURATION, "a prompt is longer than task.max_prompt_length",
        "shorten the prompt, or raise task.max_prompt_length",
        _any_of(r"sequence_length=\d+ is larger than max_length=\d+",
                r"prompt \(length \d+\) is longer than the maximum model length",
                r"the prompt of \w+ row \d+ has \d+ tokens"),
    ),
    _Signature(
        Cause.HOST_MEMORY, Origin.INFRASTRUCTURE, "a machine ran out of memory",
        "ask for more memory (cluster.memory), or avoid shared machines",
        _any_of(r"killed due to the node running low on memory", r"oom[-_]kill", r"Out of memory: Killed process",
                r"workers? \(tasks ?/ ?actors?\) killed due to memory pressure",
                r"DefaultCPUAllocator: can't allocate memory"),
    ),
    _Signature(
        Cause.COMMUNICATION, Origin.INFRASTRUCTURE, "the GPUs lost each other: a collective operation did not end",
        "try again; where it recurs, avoid that machine",
        _any_of(r"Watchdog caught collective operation timeout", r"NCCL (?:error|timeout)", r"ncclSystemError",
                r"ncclRemoteError", r"ncclUnhandledCudaError", r"Some NCCL operations have failed or timed out",
                r"Connection closed by peer", r"uncorrectable ECC error", r"GPU has fallen off the bus"),
    ),
    _Signature(
        Cause.ACTOR_DIED, Origin.INFRASTRUCTURE, "a process of the job died without a word",
        "try again; see the trainer's log for what its machine says",
        _any_of(r"The actor died unexpectedly before finishing", r"ActorDiedError", r"ActorUnavailableError",
                r"The worker died unexpectedly", r"NodeDiedError", r"RayActorError", r"WorkerCrashedError",
                r"Worker unexpectedly exits with a connection error"),
    ),
)  # fmt: skip
"""In the order in which they are looked for: a cause before what follows from it."""


def diagnose(log_tail: str) -> Diagnosis | None:
    """Why a run failed, by the end of what it printed; None where nothing known is in it."""
    lines = [line.strip() for line in _COLOUR.sub("", log_tail).splitlines()]
    for signature in _SIGNATURES:
        telling = [line for line in lines if signature.pattern.search(line)]
        if telling:
            evidence = tuple(dict.fromkeys(line[:_EVIDENCE_LENGTH] for line in telling))[-_EVIDENCE_LINES:]
            return Diagnosis(signature.cause, signature.origin, signature.message, signature.next_step, evidence)
    return None


def failure(exit_code: int, log: Path) -> LLMZeroError:
    """The error of a run whose log is there, for its last lines."""
    tail = _tail(log)
    found = diagnose(tail)
    if found is None:
        how = f"exit code {exit_code}" if exit_code else "no validation of the last step"
        raised = _RAISED.findall(tail)
        return LLMZeroError(f"VeRL ended with {how}" + (f": {raised[-1]}" if raised else ""), f"see {log}")
    text = f"{found.message}: {found.evidence[-1]}"
    if found.cause is Cause.DISK_FULL:
        return StorageError(text, found.next_step)
    kind = ConfigurationError if found.origin is Origin.CONFIGURATION else ClusterError
    return kind(text, found.next_step)


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - LOG_TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
