"""`python -m llmzero_hpc.trainers.trl.train <config.yaml> <attempt_directory>`: train a phase, or the rest of it."""

from __future__ import annotations

import atexit
import os
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzero_hpc.errors import ConfigurationError, LLMZeroError, StorageError
from llmzero_hpc.store.atomic import make_folder
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.phase_directory import AttemptDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.models import resolve_model
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.specification import read_phase
from llmzero_hpc.trainers.steps import row_order
from llmzero_hpc.trainers.training_state import Progress, drop_older, newest_state, write_progress
from llmzero_hpc.trainers.trl.arguments import grpo_arguments, step_shape
from llmzero_hpc.trainers.trl.metrics import canonical_metrics, raw_metrics

if TYPE_CHECKING:
    from llmzero_hpc.tasks.base import Row
    from llmzero_hpc.trainers.base import PhaseSpec


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. What is wrong with the user's files is one line on stderr."""
    quiet()
    try:
        specification, attempt = arguments
        train(read_phase(Path(specification)), AttemptDirectory(Path(attempt)))
    except LLMZeroError as error:
        print(f"error: {error.message}", error.next_step, sep="\n", file=sys.stderr)  # noqa: T201 - the job's log
        return error.exit_code
    return 0


def quiet() -> None:
    """Set what the libraries read when they are imported: no network, no bars, no chatter."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)


def train(spec: PhaseSpec, attempt: AttemptDirectory) -> None:
    """Make the steps of a phase that no earlier attempt made.

    Raises:
        LLMZeroError: the model, the data, the reward or the disk is not as it should be.
    """
    Phase(spec, attempt).run()


class Phase:
    """One attempt at a phase: its trainer, and what happens at the end of each of its steps."""

    def __init__(self, spec: PhaseSpec, attempt: AttemptDirectory) -> None:
        self._spec, self._attempt = spec, attempt
        self._started = newest_state(spec.training_state)
        self._task = load_task(spec.task)
        self._writer = MetricsWriter(
            attempt.metrics, int(attempt.path.name), int(os.environ.get("LLMZERO_RESTART", "0"))
        )
        self._shape = step_shape(spec.configuration, spec.hardware)
        self._done = self._started[1].step - spec.first_step + 1 if self._started else 0
        self._logs: list[dict[str, Any]] = []
        self._clock = time.monotonic()

    def run(self) -> None:
        """Train to the last step."""
        spec = self._spec
        for folder in (spec.checkpoints, spec.training_state):
            make_folder(folder)
        if self._started and self._started[1].validated and self._started[1].step == spec.last_step:
            self._write(self._started[1])
            return
        self._load()
        if self._done < spec.total_steps:
            self.trainer.train()
        else:
            self._write_due_row()
        # None leaves while another one still listens to it.
        self.trainer.accelerator.wait_for_everyone()
        self.trainer.accelerator.end_training()

    def _load(self) -> None:
        import torch
        from datasets import Dataset
        from transformers.utils.logging import disable_progress_bar
        from trl import GRPOConfig

        from llmzero_hpc.trainers.trl.generation import MergedPolicy
        from llmzero_hpc.trainers.trl.grpo import OptimizerSteps, PhaseTrainer
        from llmzero_hpc.trainers.trl.model import device_of, load_base, load_tokenizer, prompt_tokens, with_adapter

        disable_progress_bar()
        spec = self._spec
        torch.set_num_threads(spec.hardware.threads)
        device_of(spec.hardware)
        folder = resolve_model(spec.model)
        self.tokenizer = load_tokenizer(folder)
        self._rows = self._task.rows(Split.TRAIN)
        self._validation_rows = self._task.rows(Split.VALIDATION)
        self._validation_prompts = prompt_tokens(self.tokenizer, self._validation_rows)
        longest_prompt = max(map(len, self._validation_prompts))
        if spec.hardware.vllm:
            longest_prompt = max(longest_prompt, *map(len, prompt_tokens(self.tokenizer, self._rows)))
        steps = max(1, spec.total_steps - self._done)
        # ZeRO 3 partitions the weights while they are loaded, so the arguments have to be there first.
        arguments = GRPOConfig(**grpo_arguments(spec, steps, self._attempt.path / "trl", longest_prompt))
        base = load_base(folder, spec.hardware)
        merged = None
        if not spec.hardware.vllm and spec.hardware.deepspeed_stage < 3:  # noqa: PLR2004 - ZeRO's name
            merged = MergedPolicy(load_base(folder, spec.hardware))
        adapter = self._started[0] if self._started else spec.parent_adapter
        try:
            order = row_order(spec, len(self._rows), min(self._done, spec.total_steps - 1))
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

        self.trainer = PhaseTrainer(
            spec=spec,
            done=self._done,
            updates=self._shape.updates,
            merged=merged,
            optimizer_state=self._started[0] if self._started else None,
            model=with_adapter(base, adapter, spec),
            args=arguments,
            reward_funcs=self._reward,
            train_dataset=Dataset.from_dict({"prompt": [_plain(self._rows[n]) for n in order], "row": order}),
            processing_class=self.tokenizer,
            callbacks=[OptimizerSteps(self._begin, self._optimizer_step)],
        )

    def _reward(self, completion_ids: list[list[int]], row: list[int], **_: Any) -> list[float]:
        from llmzero_hpc.trainers.scoring import reward_of

        ends = self.trainer.eos_token_ids
        return [
            reward_of(self._task, self._rows[number], tokens, self.tokenizer, ends)
            for number, tokens in zip(row, completion_ids, strict=True)
        ]

    def _begin(self) -> None:
        self.trainer.restore_optimizer()
        self._write_due_row()
        self._clock = time.monotonic()

    def _write_due_row(self) -> None:
        """Write the row of the step that this attempt starts after: the last one may have been killed before it did."""
        if self._started:
            folder, progress = self._started
            self._write(progress if progress.validated else self._validated(folder, progress))

    def _optimizer_step(self, logs: dict[str, Any]) -> None:
        """Take TRL's log of an optimizer step; the last one of a GRPO step ends that."""
        self._logs.append(dict(logs))
        if len(self._logs) < self._shape.updates:
            return
        spec = self._spec
        step = self.trainer.step - 1
        raw = raw_metrics(self._logs)
        self._logs = []
        per_epoch = max(1, len(self._rows) // spec.configuration.batch_size)
        values = canonical_metrics(
            raw,
            kl_coefficient=spec.configuration.kl_coefficient,
            epoch=(step - spec.first_step + 1) / per_epoch,
            responses=spec.configuration.batch_size * spec.configuration.rollouts,
            seconds=time.monotonic() - self._clock,
        )
        progress = Progress(step, values, raw, validated=False)
        if spec.is_validated(step):
            progress = self._validated(self._saved(progress), progress)
        self._write(progress)
        self._clock = time.monotonic()

    def _saved(self, progress: Progress) -> Path:
        """Save the checkpoint of a step, then the state to continue from; returns the state's folder."""
        from safetensors import SafetensorError

        from llmzero_hpc.trainers.trl.model import save_adapter, save_together

        accelerator, spec = self.trainer.accelerator, self._spec

        def adapter(folder: Path) -> None:
            model = accelerator.unwrap_model(self.trainer.model)
            sharded = spec.hardware.deepspeed_stage == 3  # noqa: PLR2004 - ZeRO's name
            save_adapter(model, folder, main=accelerator.is_main_process, sharded=sharded)

        def state(folder: Path) -> None:
            adapter(folder)
            self.trainer.save_optimizer(folder)
            if accelerator.is_main_process:
                write_progress(folder, progress)

        target = spec.training_state / f"step_{progress.step}"
        try:
            save_together(accelerator, checkpoint_path(spec.checkpoints, progress.step), adapter)
            save_together(accelerator, target, state)
        except (SafetensorError, RuntimeError) as error:  # what a full disk is to safetensors and torch
            reason = " ".join(str(error).split())[:200]
            raise StorageError(f"the checkpoint of step {progress.step} cannot be written: {reason}") from error
        if accelerator.is_main_process:
            drop_older(spec.training_state, progress.step)
        return target

    def _validated(self, state: Path, progress: Progress) -> Progress:
        """Score the policy on the validation split, and keep the completed row with the state."""
        from accelerate.utils.operations import gather_object  # type: ignore[import-untyped]

        from llmzero_hpc.trainers.decoding import Sampling
        from llmzero_hpc.trainers.scoring import rewards, summary

        accelerator = self.trainer.accelerator
        own = list(range(accelerator.process_index, len(self._validation_rows), accelerator.num_processes))
        limit = self._spec.validation_max_response_length
        found = rewards(
            self._task,
            [self._validation_rows[number] for number in own],
            [self._validation_prompts[number] for number in own],
            lambda prompts: self.trainer.respond(prompts, limit, Sampling(temperature=0)),
            self.tokenizer,
            self.trainer.eos_token_ids,
        )
        result = summary(gather_object(found))
        values = progress.values | {"val_score": result.score}
        values |= {f"val_score/{source}": score for source, score in result.subtask_scores.items()}
        progress = Progress(progress.step, values, progress.raw, validated=True)
        if accelerator.is_main_process:
            write_progress(state, progress)
        return progress

    def _write(self, progress: Progress) -> None:
        if int(os.environ.get("RANK", "0")) == 0:
            self._writer.write(progress.step, progress.values, progress.raw)


def _plain(row: Row) -> str | list[dict[str, str]]:
    return row.prompt if isinstance(row.prompt, str) else [dict(message) for message in row.prompt]


def _end_without_destructors(exit_code: list[int]) -> None:
    """Have this process end with `exit_code[0]` once all other handlers have run, and before native code is unloaded.

    By then everything is on disk. Threads of torch.distributed that are still there when their destructors run abort
    the process now and then, and a phase that is complete would count as failed.
    """

    def end() -> None:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exit_code[0])

    atexit.register(end)  # the first one to be registered is the last one to run


if __name__ == "__main__":
    ending = [1]
    _end_without_destructors(ending)
    ending[0] = main(sys.argv[1:])
