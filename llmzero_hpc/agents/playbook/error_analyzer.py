"""The playbook's error analyzer: why a phase failed, from the tail of its log, and a configuration that avoids it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import FailureRequest, Repair
from llmzero_hpc.agents.playbook.moves import Move, fitted, limits
from llmzero_hpc.agents.playbook.signals import read
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.node import Rationale

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmzero_hpc.search.hyperparameters import Scalar

AUTHOR = "playbook"

_KILLED = frozenset({-9, 137})
"""Exit codes of a process that was killed: by the signal itself, or as a shell reports it."""
_EVIDENCE_LENGTH = 200
_JITTERS = 64

Step = tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A class of failures: what its log says, and repairs from the mildest to the strongest.

    `retry` tries the same configuration once first, as nothing in it is the cause.
    """

    name: str
    diagnosis: str
    pattern: re.Pattern[str]
    ladder: tuple[Step, ...]
    retry: bool = False


def _pattern(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_HALF_BATCH: Step = (Move("batch_size", 0.5),)
_LESS_MEMORY: tuple[Step, ...] = (
    _HALF_BATCH,
    (Move("mini_batches", 2.0),),
    (Move("batch_size", 0.5), Move("mini_batches", 2.0)),
    (Move("batch_size", 0.25), Move("mini_batches", 2.0)),
    (Move("rollouts", 0.5),),
    (Move("max_response_length", 0.75), Move("batch_size", 0.5)),
)
"""Batch first, then more and smaller optimizer steps; capacity (rollouts, length) only when nothing else is left."""
_CALMER: tuple[Step, ...] = (
    (Move("learning_rate", 0.5), Move("gradient_clip", 0.5)),
    (Move("learning_rate", 0.25), Move("gradient_clip", 0.25), Move("kl_coefficient", 2.0, start=1e-3)),
    (Move("learning_rate", 0.1), Move("gradient_clip", 0.1), Move("clip_range", 0.5)),
)
_SLOWER: tuple[Step, ...] = (
    (Move("learning_rate", 0.5),),
    (Move("learning_rate", 0.25),),
    (Move("learning_rate", 0.5), Move("batch_size", 0.5)),
)

FAILURES: tuple[Failure, ...] = (
    Failure(
        "out_of_memory", "The device ran out of memory: a smaller batch needs less.",
        _pattern(r"cuda out of memory", r"outofmemoryerror", r"hip out of memory", r"cublas_status_alloc_failed",
                 r"cuda error: out of memory", r"no available memory for the cache blocks"),
        _LESS_MEMORY,
    ),
    Failure(
        "unknown_argument", "The trainer does not know an argument: the overrides are dropped.",
        _pattern(r"unexpected keyword argument", r"unrecognized arguments?", r"is not in struct",
                 r"could not override", r"unknown (?:argument|option|key|override)", r"got an unexpected"),
        _SLOWER,
    ),
    Failure(
        "disk_full", "The disk is full or over quota: nothing in the configuration helps, tried again as it is.",
        _pattern(r"no space left on device", r"disk quota exceeded", r"errno 28\b", r"errno 122\b"),
        _SLOWER, retry=True,
    ),
    Failure(
        "diverged", "A loss, gradient or probability was not finite: smaller and shorter updates.",
        _pattern(r"probability tensor contains either",
                 r"\b(?:loss|grad_norm|gradient|logits?|kl)\b.{0,40}\b(?:nan|inf)\b",
                 r"non-?finite", r"floatingpointerror", r"\bnan\b.{0,40}\b(?:loss|grad|gradient|logits?)\b",
                 r"gradient explo"),
        _CALMER,
    ),
    Failure(
        "too_long", "Prompt and response together exceed what the model takes: a shorter response limit leaves room; "
        "a prompt that is too long by itself can be mended in the data only.",
        _pattern(r"max(?:imum)?[_ ]?(?:model|context|sequence|position)[_ ]?(?:len|length|embeddings)",
                 r"prompt.{0,60}too long",
                 r"prompt.{0,80}(?:longer than|exceeds)", r"sequence length is longer than"),
        tuple((Move("max_response_length", share),) for share in (0.75, 0.5, 0.25)),
    ),
    Failure(
        "missing_or_reward", "A file is missing or the reward function raised: nothing in the configuration helps, "
        "tried again as it is.",
        _pattern(r"filenotfounderror", r"no such file or directory", r"permissionerror", r"modulenotfounderror",
                 r"importerror", r"compute_score", r"reward (?:function|raised|exception)", r"configurationerror"),
        _SLOWER, retry=True,
    ),
    Failure(
        "killed", "The process was killed, most likely for its memory: a smaller batch needs less.",
        _pattern(r"oom-?kill", r"out of memory: killed", r"sigkill", r"^killed$", r"signal 9\b"),
        _LESS_MEMORY,
    ),
)  # fmt: skip
"""Classes of failures in the order in which they are looked for."""

UNKNOWN = Failure("unknown", "The log names no cause that is known: a calmer run.", _pattern(r"(?!)"), _SLOWER)


def classify(log_tail: str, exit_code: int | None, *, finite: bool = True) -> Failure:
    """The class of a failure. `finite` is false when the metrics held values that were not."""
    # A trainer that knows why it failed says so last; before that, VeRL prints settings that sound like failures.
    said = log_tail.rpartition("\nerror: ")[2]
    for failure in FAILURES:
        if failure.name == "killed" and exit_code in _KILLED:
            return failure
        if failure.pattern.search(said):
            return failure
    return next(f for f in FAILURES if f.name == "diverged") if not finite else UNKNOWN


def repair(request: FailureRequest) -> Repair:
    """Unlike every earlier repair, and unlike the failed one but for a retry, where bounds allow it."""
    failed = request.node.configuration or Configuration()
    finite = all(math.isfinite(value) for row in request.series.rows for value in row.values.values())
    failure = classify(request.log_tail, request.exit_code, finite=finite)
    earlier = [_key(node.configuration) for node in request.earlier if node.configuration]
    configuration = failed
    for candidate in _candidates(failure, failed, request):
        retried = failure.retry and candidate is failed
        if _key(candidate) not in earlier and (retried or _key(candidate) != _key(failed)):
            configuration = candidate
            break
    changes = tuple(
        f"{name}: {before} to {after}" for name, (before, after) in failed.differences(configuration).items()
    )
    exit_words = () if request.exit_code is None else (f"exit code {request.exit_code}",)
    line = _telling_line(failure, request.log_tail)
    evidence = exit_words + ((line,) if line else ()) + (changes or ("the same configuration again",))
    resume = _resume_step(failure, request)
    if resume is not None:
        evidence += (f"resumes from step {resume}",)
    return Repair(configuration, Rationale(AUTHOR, failure.diagnosis, evidence, failure.name), resume)


def _resume_step(failure: Failure, request: FailureRequest) -> int | None:
    """The failed phase's newest checkpoint; after a divergence its best from before the damage; None without one."""
    points = request.node.checkpoints
    if failure.name != "diverged":
        return points[-1].step if points else None
    collapse = read(request.series).collapse
    sound = [point for point in points if collapse is None or point.step < collapse.onset]
    return max(sound, key=lambda point: (point.score, -point.step)).step if sound else None


def _candidates(failure: Failure, failed: Configuration, request: FailureRequest) -> Iterator[Configuration]:
    if failure.retry:
        yield failed
    if failure.name == "unknown_argument" and failed.overrides:
        named = {key: value for key, value in failed.overrides.items() if key not in request.log_tail}
        yield replace(failed, overrides=named)
        yield replace(failed, overrides={})
        failed = replace(failed, overrides={})
    for step in failure.ladder:
        yield _stepped(failed, {move.parameter: move.applied(failed) for move in step}, request.bounds)
    random = Random(f"repair:{request.node.id}")  # noqa: S311 - repeatable, not secret
    for _ in range(_JITTERS):
        # All the ladder was tried: below what failed, in everything that calms a run or saves memory.
        names = ("learning_rate", "gradient_clip", "clip_range", "batch_size", "rollouts", "max_response_length")
        values = {name: Move(name, random.uniform(0.3, 1.0)).applied(failed) for name in names}
        yield _stepped(failed, values, request.bounds)


def _stepped(base: Configuration, values: Mapping[str, Scalar], bounds: Mapping[str, Bounds]) -> Configuration:
    """Fitted into the bounds, with the epochs that keep the number of steps when the batch changes."""
    changed = fitted(base, values, bounds)
    if changed.batch_size == base.batch_size:
        return changed
    low, high = limits("epochs", bounds)
    epochs = math.floor(base.epochs * changed.batch_size / base.batch_size * 1e6) / 1e6
    return changed.changed(epochs=float(min(max(epochs, low), high)))


def _key(configuration: Configuration) -> tuple[object, ...]:
    return (*configuration.values().items(), *sorted(configuration.overrides.items()))


def _telling_line(failure: Failure, log_tail: str) -> str:
    lines = [line.strip() for line in log_tail.splitlines() if line.strip()]
    telling = [line for line in lines if failure.pattern.search(line)]
    chosen = telling or [line for line in lines if "error" in line.lower()] or lines
    return chosen[-1][:_EVIDENCE_LENGTH] if chosen else ""
