"""Why a run failed, told from the end of its log by what torch, vLLM, Ray and VeRL print; those lines are the proof."""

from __future__ import annotations

import os
import re
import shutil
import signal
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
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
_FULL_BYTES: Final = 16 * 2**20
"""With no more left than this, a disk may have kept a log from being written."""
_SENT_BY_OTHERS: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that VeRL does not send itself: a person, a shutdown, or a kernel short of memory."""


class Kind(StrEnum):
    """Where a cause lies: trying again as it is helps for the infrastructure alone."""

    CONFIGURATION = "configuration"
    INFRASTRUCTURE = "infrastructure"


class Cause(StrEnum):
    """What ended a run."""

    DISK_FULL = "disk_full"
    REWARD = "reward"
    KV_CACHE = "kv_cache"
    GPU_MEMORY = "gpu_memory"
    NOT_FINITE = "not_finite"
    CHAT_TEMPLATE = "chat_template"
    LONG_PROMPT = "long_prompt"
    HOST_MEMORY = "host_memory"
    NODE_LOST = "node_lost"
    COMMUNICATION = "communication"
    ENGINE_DIED = "engine_died"
    RAY_DIED = "ray_died"
    ACTOR_DIED = "actor_died"


@dataclass(frozen=True)
class Failure:
    """One row of the table of failures.

    Attributes:
        cause: what ended the run.
        kind: whether the same run may work at another time.
        message: one line for people.
        next_step: what can be done.
        patterns: regular expressions; a line of the log that has one of them, in any case of letters, proves it.
    """

    cause: Cause
    kind: Kind
    message: str
    next_step: str
    patterns: tuple[str, ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """All of them in one."""
        return re.compile("|".join(self.patterns), re.IGNORECASE)


FAILURES: Final = (
    Failure(
        Cause.DISK_FULL, Kind.INFRASTRUCTURE,
        "the disk is full or over quota",
        "free some space; the phase goes on where it was",
        (
            r"no space left on device",
            r"disk quota exceeded",
            r"\[errno (?:28|122)\]",
            r"inline_container\.cc.*unexpected pos",
            r"PytorchStreamWriter failed writing file",
            r"ray\.exceptions\.OutOfDiskError",
        ),
    ),
    Failure(
        Cause.REWARD, Kind.CONFIGURATION,
        "the reward function raised an error or returned no number",
        "mend the reward function",
        (
            r"\bcompute_score (?:raised|returned)\b",
            r"ConfigurationError: .*\breward\b",
        ),
    ),
    Failure(
        Cause.KV_CACHE, Kind.CONFIGURATION,
        "the memory left to vLLM does not hold one response of full length",
        "lower max_response_length, or raise hardware.vllm_memory_utilization",
        (
            r"no available memory for the cache blocks",
            r"to serve at least one request with the models?'?s? max(?:imum)? seq(?:uence)? len",
            r"larger than the (?:maximum number of tokens that can be stored in|available) KV cache",
        ),
    ),
    Failure(
        Cause.GPU_MEMORY, Kind.CONFIGURATION,
        "a GPU ran out of memory",
        "lower batch_size or max_response_length, or hardware.micro_batch_size",
        (
            r"CUDA out of memory",
            r"torch\.(?:cuda\.)?OutOfMemoryError",
            r"CUDA error: out of memory",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"free memory on device .* is less than desired GPU memory utilization",
        ),
    ),
    Failure(
        Cause.NOT_FINITE, Kind.CONFIGURATION,
        "a probability, a loss or a gradient is not finite any more",
        "lower learning_rate or gradient_clip",
        (
            r"probability tensor contains either",
            r"^alarm: .*not a finite number",
            r"WARN: rank \d+ grad_norm is not finite",
            r"\b(?:loss|grad_norm) is (?:nan|inf|not finite)\b",
        ),
    ),
    Failure(
        Cause.CHAT_TEMPLATE, Kind.CONFIGURATION,
        "prompts do not fit the model's tokenizer or its chat template",
        "use a tokenizer with a chat template for these roles, or prompts of plain text",
        (
            r"tokenizer\.chat_template is not set",
            r"jinja2\.exceptions\.\w*Error",
            r"conversation roles must alternate",
            r"apply_chat_template.*(?:error|fail)",
            r"has no chat template",
            r"tokenizer class .* does not exist",
            r"can't load tokenizer for",
        ),
    ),
    Failure(
        Cause.LONG_PROMPT, Kind.CONFIGURATION,
        "a prompt is longer than task.max_prompt_length",
        "shorten the prompt, or raise task.max_prompt_length",
        (
            r"sequence_length=\d+ is larger than max_length=\d+",
            r"prompt \(length \d+\) is longer than the maximum model length",
            r"the prompt of \w+ row \d+ has \d+ tokens",
        ),
    ),
    Failure(
        Cause.HOST_MEMORY, Kind.INFRASTRUCTURE,
        "a machine ran out of memory",
        "ask for more memory (cluster.memory), or avoid shared machines",
        (
            r"killed due to the node running low on memory",
            r"oom[-_]kill",
            r"Out of memory: Killed process",
            r"workers? \(tasks ?/ ?actors?\) killed due to memory pressure",
            r"DefaultCPUAllocator: can't allocate memory",
        ),
    ),
    Failure(
        Cause.NODE_LOST, Kind.INFRASTRUCTURE,
        "a machine of the job was lost",
        "try again; where it recurs, avoid that machine",
        (
            r"NodeDiedError",
            r"\bits node has died\b",
            r"\bthe node with node id: .{0,200}\bhas been marked dead\b",
            r"GPU has fallen off the bus",
            r"uncorrectable ECC error",
        ),
    ),
    Failure(
        Cause.COMMUNICATION, Kind.INFRASTRUCTURE,
        "the GPUs lost each other: a collective operation did not end",
        "try again; where it recurs, avoid that machine",
        (
            r"Watchdog caught collective operation timeout",
            r"NCCL (?:error|timeout)",
            r"ncclSystemError",
            r"ncclRemoteError",
            r"ncclUnhandledCudaError",
            r"Some NCCL operations have failed or timed out",
            r"Connection closed by peer",
        ),
    ),
    Failure(
        Cause.ENGINE_DIED, Kind.INFRASTRUCTURE,
        "vLLM's engine died, and nothing says that its settings were the cause",
        "try again; see the trainer's log for what it said before",
        (
            r"EngineDeadError",
            r"EngineCore encountered an? (?:fatal error|issue)",
            r"Engine core initialization failed",
            r"(?:Engine core proc|Worker ?Proc) .{0,80}died unexpectedly",
        ),
    ),
    Failure(
        Cause.RAY_DIED, Kind.INFRASTRUCTURE,
        "Ray itself cannot be reached any more",
        "try again; see ray-0.log beside the trainer's log",
        (
            r"ActorUnavailableError",
            r"LocalRayletDiedError",
            r"\blocal raylet (?:died|death|failed|is dead)\b",
            r"\bthe raylet may have died\b",
            r"\bthe current node timed out during startup\b",
            r"Failed to connect to GCS (?:at|within)\b",
        ),
    ),
    Failure(
        Cause.ACTOR_DIED, Kind.INFRASTRUCTURE,
        "a process of the job died without a word",
        "try again; see the trainer's log for what its machine says",
        (
            r"The actor died unexpectedly before finishing",
            r"ActorDiedError",
            r"The worker died unexpectedly",
            r"RayActorError",
            r"WorkerCrashedError",
            r"Worker unexpectedly exits with a connection error",
        ),
    ),
)  # fmt: skip
"""In the order in which they are looked for: a cause before what follows from it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a run failed, with the lines of its log that say so, in their order; at least one."""

    failure: Failure
    evidence: tuple[str, ...]

    def error(self) -> LLMZeroError:
        """As it is told: one line with the last of its proofs; the others are its notes."""
        kind: type[LLMZeroError] = ClusterError
        if self.failure.cause is Cause.DISK_FULL:
            kind = StorageError
        elif self.failure.kind is Kind.CONFIGURATION:
            kind = ConfigurationError
        error = kind(f"{self.failure.message}: {self.evidence[-1]}", self.failure.next_step)
        for line in self.evidence[:-1]:
            error.add_note(line)
        return error


def diagnose(log_tail: str) -> Diagnosis | None:
    """Why a run failed, by the end of what it printed; None where nothing known is in it."""
    lines = [line.strip() for line in _COLOUR.sub("", log_tail).splitlines()]
    for failure in FAILURES:
        telling = [line for line in lines if failure.pattern.search(line)]
        if telling:
            evidence = tuple(dict.fromkeys(line[:_EVIDENCE_LENGTH] for line in telling))[-_EVIDENCE_LINES:]
            return Diagnosis(failure, evidence)
    return None


def failed_run(exit_code: int, log: Path) -> LLMZeroError:
    """The error of a run, by its exit code (negative for a signal) and the last lines of its log."""
    tail = _tail(log)
    found = diagnose(tail)
    if found is not None:
        return found.error()
    if -exit_code in _SENT_BY_OTHERS:
        name = signal.Signals(-exit_code).name
        return ClusterError(f"VeRL was killed by {name}, which it does not send itself", f"try again; see {log}")
    how = f"exit code {exit_code}" if exit_code else "no validation of the last step"
    if shutil.disk_usage(log.parent).free < _FULL_BYTES:
        return StorageError(f"VeRL ended with {how}, and the disk of {log.parent} is full", "free some space")
    raised = _RAISED.findall(tail)
    return LLMZeroError(f"VeRL ended with {how}" + (f": {raised[-1]}" if raised else ""), f"see {log}")


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
