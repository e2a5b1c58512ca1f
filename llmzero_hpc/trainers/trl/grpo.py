"""TRL's GRPOTrainer as a phase uses it: seeded step by step, with lean decoding, and the base model as KL reference."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
import trl.trainer.utils
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from llmzero_hpc.trainers.decoding import Sampling
from llmzero_hpc.trainers.steps import step_seed
from llmzero_hpc.trainers.trl.generation import MergedPolicy, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from llmzero_hpc.trainers.base import PhaseSpec


class OptimizerSteps(TrainerCallback):  # type: ignore[misc]  # transformers ships no types that are checked here
    """Calls `begin` when training begins, and `log` with what TRL logs after each optimizer step."""

    def __init__(self, begin: Callable[[], None], log: Callable[[dict[str, Any]], None]) -> None:
        self._begin, self._log = begin, log

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Called by the trainer."""
        self._begin()

    def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
        """Called by the trainer, after the last step once more with a summary."""
        if "train_runtime" not in logs:
            self._log(logs)


class PhaseTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL is not typed
    """GRPO of one phase.

    Args:
        spec: the phase.
        done: GRPO steps that earlier attempts made.
        updates: optimizer steps of one GRPO step.
        merged: decodes rollouts and validation without vLLM; None where weights are sharded (ZeRO 3).
        optimizer_state: folder to load the optimizer from; None starts a fresh one.
        trl_arguments: for GRPOTrainer.
    """

    def __init__(
        self,
        *,
        spec: PhaseSpec,
        done: int,
        updates: int,
        merged: MergedPolicy | None,
        optimizer_state: Path | None,
        **trl_arguments: Any,
    ) -> None:
        super().__init__(**trl_arguments)
        _fit_logit_tiles(self.model.config.get_text_config().vocab_size)
        self._spec, self._done, self._updates = spec, done, updates
        self.remove_callback(PrinterCallback)
        self._merged, self._merged_at = merged, -1
        self._optimizer_state = optimizer_state
        if "ref" in self.model.peft_config:
            # TRL measures KL against a copy of the adapter that the phase starts from; ours is the base model.
            self.model.delete_adapter("ref")
        if merged is not None:
            merged.model.to(self.accelerator.device)

    @property
    def step(self) -> int:
        """The GRPO step in progress, numbered along the strategy."""
        return self._spec.first_step + self._done + int(self.state.global_step) // self._updates

    def respond(self, prompts: Sequence[Sequence[int]], limit: int, sampling: Sampling) -> list[list[int]]:
        """One response to each prompt by the policy as it is now; equal prompts in a row are read once."""
        if self.use_vllm:
            return self._respond_by_vllm(prompts, limit, sampling)
        unique, copies = _grouped(prompts)
        with self._decoding_model() as model:
            responses: list[list[int]] = decode(
                model,
                unique,
                copies=copies,
                limit=limit,
                end_tokens=self.eos_token_ids,
                padding=self._tokenizer.pad_token_id,
                sampling=sampling,
            )
        return responses

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *more: Any, **options: Any) -> Any:
        if self.use_vllm:
            return super()._generate_single_turn(prompt_ids, images, *more, **options)
        sampling = Sampling(self.temperature, self.top_p, self.top_k)
        return self.respond(prompt_ids, self.max_completion_length, sampling), None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        seed = step_seed(self._spec.seed, self._spec.node, self.step)
        torch.manual_seed(seed + self.accelerator.process_index)
        outputs = super()._generate_and_score_completions(inputs)
        if self.beta == 0 and self._spec.is_validated(self.step):
            self._measure_kl(outputs)
        return outputs

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _measure_kl(self, outputs: Any) -> None:
        """KL from the base model where it is no part of the loss; TRL leaves it out then."""
        tokens = torch.cat([outputs["prompt_ids"], outputs["completion_ids"]], 1)
        mask = torch.cat([outputs["prompt_mask"], outputs["completion_mask"]], 1)
        keep, size = outputs["completion_ids"].size(1), self.args.per_device_train_batch_size
        policy = self._get_per_token_logps_and_entropies(self.model, tokens, mask, keep, batch_size=size)[0]
        with self.accelerator.unwrap_model(self.model).disable_adapter():
            base = self._get_per_token_logps_and_entropies(self.model, tokens, mask, keep, batch_size=size)[0]
        difference = base - policy
        weights = outputs["completion_mask"]
        total = ((difference.exp() - difference - 1) * weights).sum()
        sums = self.accelerator.reduce(torch.stack([total, weights.sum()]), reduction="sum")
        self._metrics["train"]["kl"].append((sums[0] / sums[1].clamp(min=1.0)).item())

    def restore_optimizer(self) -> None:
        """Load the optimizer of an earlier attempt, once training has made its own; nothing without one."""
        if self._optimizer_state is None:
            return
        if self.is_deepspeed_enabled:
            from transformers.integrations.deepspeed import deepspeed_load_checkpoint

            deepspeed_load_checkpoint(self.model_wrapped, str(self._optimizer_state), load_module_strict=False)
        else:
            self._load_optimizer_and_scheduler(str(self._optimizer_state))

    def save_optimizer(self, folder: Path) -> None:
        """Write the optimizer's state; all processes call it."""
        self._save_optimizer_and_scheduler(str(folder))

    @contextlib.contextmanager
    def _decoding_model(self) -> Iterator[Any]:
        if self._merged is not None:
            if self._merged_at != self.state.global_step:
                self._merged.refresh(self.accelerator.unwrap_model(self.model))
                self._merged_at = self.state.global_step
            yield self._merged.model
            return
        with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model:
            yield model

    def _respond_by_vllm(self, prompts: Sequence[Sequence[int]], limit: int, sampling: Sampling) -> list[list[int]]:
        engine = self.vllm_generation
        if self.state.global_step != self._last_loaded_step:
            engine.sync_weights()
            self._last_loaded_step: int = self.state.global_step
        kept = engine.temperature, engine.top_p, engine.top_k, engine.max_completion_length
        try:
            engine.temperature, engine.top_p, engine.top_k = sampling.temperature, sampling.top_p, sampling.top_k
            engine.max_completion_length = limit
            responses = engine.generate(prompts=[list(p) for p in prompts], images=None, num_generations=1)[1]
        finally:
            engine.temperature, engine.top_p, engine.top_k, engine.max_completion_length = kept
        return [list(response) for response in responses]


def _fit_logit_tiles(vocabulary: int) -> None:
    """Let TRL reserve no more columns for the logits of a token than there are; it takes 32,768 at least.

    With a small vocabulary most of a large buffer stays untouched, and its scattered pages cost more than the step.
    """
    name = "_CHUNKED_LOGPROB_CHUNK_SIZE"
    if getattr(trl.trainer.utils, name, 0) > vocabulary:
        setattr(trl.trainer.utils, name, vocabulary)


def _grouped(prompts: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], int]:
    """Prompts with equal neighbours folded, and the length of each such run where all are equally long."""
    starts = [n for n, prompt in enumerate(prompts) if n == 0 or list(prompt) != list(prompts[n - 1])]
    runs = {after - start for start, after in zip(starts, [*starts[1:], len(prompts)], strict=True)}
    if len(runs) == 1:
        return [prompts[n] for n in starts], runs.pop()
    return list(prompts), 1
