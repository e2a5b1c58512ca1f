"""`python -m llmzero_hpc.trainers.lean.train <config.yaml> <attempt_directory>`: train a phase, or the rest of it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llmzero_hpc.errors import ConfigurationError, LLMZeroError, StorageError
from llmzero_hpc.store.atomic import make_folder
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.models import resolve_model
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.checkpoints import checkpoint_path, whole_folder
from llmzero_hpc.trainers.decoding import Responses, Sampling, respond
from llmzero_hpc.trainers.lean.adapter import new_adapter, read_adapter, save_adapter
from llmzero_hpc.trainers.lean.cost import Work, modelled_seconds
from llmzero_hpc.trainers.lean.objective import Batch, Learner, Objective, advantages
from llmzero_hpc.trainers.lean.policy import CachedPolicy, Policy, read_shape, read_weights
from llmzero_hpc.trainers.lean.vocabulary import Vocabulary
from llmzero_hpc.trainers.scoring import reward_of, score
from llmzero_hpc.trainers.specification import read_phase
from llmzero_hpc.trainers.steps import row_order, step_seed
from llmzero_hpc.trainers.training_state import Progress, drop_older, newest_state, write_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmzero_hpc.trainers.base import PhaseSpec

_OPTIMIZER = "optimizer.pt"
_CHUNK_ROWS = 32
"""Responses of a pass where the hardware sets no size: rows of much the same length leave little padding."""


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. What is wrong with the user's files is one line on stderr."""
    try:
        specification, attempt = arguments
        train(read_phase(Path(specification)), AttemptDirectory(Path(attempt)))
    except LLMZeroError as error:
        print(f"error: {error.message}", error.next_step, sep="\n", file=sys.stderr)  # noqa: T201 - the job's log
        return error.exit_code
    return 0


def train(spec: PhaseSpec, attempt: AttemptDirectory) -> None:
    """Make the steps of a phase that no earlier attempt made.

    Raises:
        LLMZeroError: the model, the data, the reward or the disk is not as it should be.
    """
    for folder in (spec.checkpoints, spec.training_state):
        make_folder(folder)
    writer = MetricsWriter(attempt.metrics, int(attempt.path.name), int(os.environ.get("LLMZERO_RESTART", "0")))
    state = newest_state(spec.training_state)
    phase = Phase(spec, state)
    first = spec.first_step
    if state is not None:
        first = state[1].step + 1
        writer.write(*_row(state[1] if state[1].validated else phase.validated(*state)))
    for step, rows in zip(range(first, spec.last_step + 1), phase.batches(first), strict=True):
        progress = phase.step(step, rows)
        if spec.is_validated(step):
            progress = phase.validated(phase.saved(progress), progress)
        writer.write(*_row(progress))


class Phase:
    """One attempt at a phase: the policy in training, and what happens in each step."""

    def __init__(self, spec: PhaseSpec, state: tuple[Path, Progress] | None) -> None:
        torch.set_num_threads(spec.hardware.threads)
        self._spec = spec
        self._task = load_task(spec.task)
        folder = resolve_model(spec.model)
        self._vocabulary = Vocabulary(folder)
        shape, weights = read_shape(folder), read_weights(folder)
        start = state[0] if state else spec.parent_adapter
        if start is None:
            torch.manual_seed(step_seed(spec.seed, spec.node, 0))
            adapter = new_adapter(weights, shape.layers, spec.configuration)
        else:
            adapter = read_adapter(start, weights)
        self._learner = Learner(shape, weights, adapter, spec.configuration)
        if state is not None:
            self._learner.optimizer.load_state_dict(torch.load(state[0] / _OPTIMIZER, weights_only=True))
        chunk = spec.hardware.micro_batch_size or _CHUNK_ROWS
        self._objective = Objective(spec.configuration, Policy(shape, weights, {}), chunk)
        self._rows = self._task.rows(Split.TRAIN)

    def batches(self, first: int) -> list[list[int]]:
        """Numbers of the training rows of each step from `first` on.

        Raises:
            ConfigurationError: there are fewer rows than one batch takes.
        """
        size = self._spec.configuration.batch_size
        if first > self._spec.last_step:
            return []
        try:
            order = row_order(self._spec, len(self._rows), first - self._spec.first_step)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        return [order[at : at + size] for at in range(0, len(order), size)]

    def step(self, step: int, rows: Sequence[int]) -> Progress:
        """One GRPO step."""
        spec, configuration = self._spec, self._spec.configuration
        started = time.process_time(), time.monotonic()
        torch.manual_seed(step_seed(spec.seed, spec.node, step))
        drawn = [self._rows[row] for row in rows for _ in range(configuration.rollouts)]
        prompts = self._vocabulary.prompts([self._rows[row] for row in rows])
        sampling = Sampling(configuration.temperature)
        responses = self._respond(prompts, configuration.rollouts, configuration.max_response_length, sampling)
        texts = responses.lists()
        rewards = torch.tensor(
            [
                reward_of(self._task, row, tokens, self._vocabulary, self._vocabulary.ends)
                for row, tokens in zip(drawn, texts, strict=True)
            ]
        )
        gain, same = advantages(rewards, configuration.rollouts, normalized=configuration.advantage_normalization)
        each = [prompt for prompt in prompts for _ in range(configuration.rollouts)]
        batch = Batch(each, Responses(responses.tokens, responses.lengths, responses.logps.clone()), gain)
        measure_kl = spec.is_validated(step)
        updates = [
            self._learner.update(self._objective, batch, part.tolist(), measure_kl=measure_kl)
            for part in torch.randperm(len(each)).chunk(configuration.mini_batches)
        ]
        work = Work(
            decodings=float(responses.lengths.max()),
            generated=float(responses.lengths.sum()),
            trained=sum(update.pop("trained_tokens") for update in updates),
            scored=sum(update.pop("scored_tokens") for update in updates),
        )
        wall = time.monotonic() - started[1]
        seconds = modelled_seconds(work) if spec.hardware.cost == "modelled" else wall
        cut = [not tokens or tokens[-1] not in self._vocabulary.ends for tokens in texts]
        values = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
        values |= {
            "epoch": (step - spec.first_step + 1) / max(1, len(self._rows) // configuration.batch_size),
            "reward_mean": float(rewards.mean()),
            "response_length_mean": work.generated / len(each),
            "response_clip_ratio": sum(cut) / len(each),
            "learning_rate": configuration.learning_rate,
            "zero_std_fraction": same,
            "step_seconds": seconds,
            "tokens_per_second": work.generated / max(seconds, 1e-9),
        }
        raw = {**work.named(), "wall_seconds": wall, "cpu_seconds": time.process_time() - started[0]}
        return Progress(step, values, raw, validated=False)

    def saved(self, progress: Progress) -> Path:
        """Save the checkpoint of a step, then the state to continue from; returns the state's folder.

        Raises:
            StorageError: the file system refused.
        """
        from safetensors import SafetensorError

        spec = self._spec
        state = spec.training_state / f"step_{progress.step}"
        try:
            with whole_folder(checkpoint_path(spec.checkpoints, progress.step)) as folder:
                save_adapter(self._learner.adapter, folder)
            with whole_folder(state) as folder:
                save_adapter(self._learner.adapter, folder)
                torch.save(self._learner.optimizer.state_dict(), folder / _OPTIMIZER)
                write_progress(folder, progress)
        except (SafetensorError, RuntimeError) as error:  # what a full disk is to safetensors and torch
            reason = " ".join(str(error).split())[:200]
            raise StorageError(f"the checkpoint of step {progress.step} cannot be written: {reason}") from error
        drop_older(spec.training_state, progress.step)
        return state

    def validated(self, state: Path, progress: Progress) -> Progress:
        """Score the policy on the validation split, and keep the completed row with the state."""
        limit = self._spec.validation_max_response_length
        rows = self._task.rows(Split.VALIDATION)
        result = score(
            self._task,
            rows,
            self._vocabulary.prompts(rows),
            lambda prompts: self._respond(prompts, 1, limit, Sampling(0)).lists(),
            self._vocabulary,
            self._vocabulary.ends,
        )
        values = progress.values | {"val_score": result.score}
        values |= {f"val_score/{source}": score for source, score in result.subtask_scores.items()}
        progress = Progress(progress.step, values, progress.raw, validated=True)
        write_progress(state, progress)
        return progress

    def _respond(self, prompts: Sequence[Sequence[int]], copies: int, limit: int, sampling: Sampling) -> Responses:
        with torch.no_grad():
            policy = self._learner.policy()
        vocabulary = self._vocabulary
        responses: Responses = respond(
            CachedPolicy(policy),
            prompts,
            copies=copies,
            limit=limit,
            end_tokens=vocabulary.ends,
            padding=vocabulary.padding,
            sampling=sampling,
        )
        return responses


def _row(progress: Progress) -> tuple[int, dict[str, float], dict[str, float]]:
    return progress.step, progress.values, progress.raw


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
