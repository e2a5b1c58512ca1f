"""Rollouts by transformers in a Ray actor: the place of vLLM where there is no GPU.

VeRL imports this module (`actor_rollout_ref.model.external_lib`) wherever it builds the model's configuration, which is
before it looks rollouts up by name. Each training process has one server. The adapter arrives after every step and is
merged into a copy of the base model, as in the trl trainer.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
import torch
from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from llmzero_hpc.trainers.decoding import Sampling
from llmzero_hpc.trainers.trl.generation import MergedPolicy, decode
from llmzero_hpc.trainers.verl.rendering import CPU_ROLLOUT_NAME
from llmzero_hpc.trainers.verl.tokens import end_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GATHER_SECONDS = 0.03
"""How long requests are gathered into one batch."""
_BATCH_ROWS = 256
_LORA_SETTINGS = ("r", "lora_alpha", "target_modules", "bias", "task_type")


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a response is drawn; those that are drawn alike are drawn together."""

    sampling: Sampling
    limit: int


class Server:
    """Generates with the newest weights it was sent. An async Ray actor: its methods run in one thread, in turns."""

    def __init__(self, folder: str, response_length: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._base, copy = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
        self._policy = MergedPolicy(copy)
        self._adapted: Any = None
        self._ends = end_tokens(folder, AutoTokenizer.from_pretrained(folder))
        self._response_length = response_length
        self._step: int | None = None
        self._waiting: list[tuple[list[int], _Manner, asyncio.Future[TokenOutput]]] = []
        self._drain: asyncio.Task[None] | None = None

    async def ready(self) -> bool:
        """Answers when the model is loaded."""
        return True

    async def update_weights(self, weights: dict[str, Any], lora: dict[str, Any] | None, step: int | None) -> None:
        """Take over the adapter after a step, or weights of the base model where `lora` is None."""
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

        if lora is None:
            self._base.load_state_dict(weights, strict=False)
            self._policy.model.load_state_dict(weights, strict=False)
        else:
            if self._adapted is None:
                settings = {key: lora[key] for key in _LORA_SETTINGS if key in lora}
                settings["target_modules"] = list(settings["target_modules"])
                self._adapted = get_peft_model(self._base, LoraConfig(**settings))
            found = set_peft_model_state_dict(self._adapted, weights)
            if found.unexpected_keys or any("lora_" in key for key in found.missing_keys):
                raise RuntimeError(f"the adapter does not fit: {found}")
            self._policy.refresh(self._adapted)
        self._step = self._step if step is None else step

    async def generate(self, prompt_ids: Sequence[int], sampling_params: dict[str, Any], **_: Any) -> TokenOutput:
        """One response."""
        sampling = Sampling(
            temperature=float(sampling_params.get("temperature", 1.0)),
            top_p=float(sampling_params.get("top_p", 1.0)),
            top_k=max(0, int(sampling_params.get("top_k", 0))),
        )
        manner = _Manner(sampling, int(sampling_params.get("max_tokens") or self._response_length))
        answer: asyncio.Future[TokenOutput] = asyncio.get_running_loop().create_future()
        self._waiting.append((list(prompt_ids), manner, answer))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._answer_all())
        return await answer

    async def _answer_all(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        while self._waiting:
            manner = self._waiting[0][1]
            batch = [request for request in self._waiting if request[1] == manner][:_BATCH_ROWS]
            taken = {id(request) for request in batch}
            self._waiting = [request for request in self._waiting if id(request) not in taken]
            try:
                outputs = await asyncio.to_thread(self._responses, [prompt for prompt, _, _ in batch], manner)
            except RuntimeError as error:
                for _, _, answer in batch:
                    answer.set_exception(error)
                continue
            for (_, _, answer), output in zip(batch, outputs, strict=True):
                answer.set_result(output)

    def _responses(self, prompts: list[list[int]], manner: _Manner) -> list[TokenOutput]:
        responses = decode(
            self._policy.model,
            prompts,
            limit=manner.limit,
            end_tokens=self._ends,
            padding=self._ends[0],
            sampling=manner.sampling,
        )
        scores = self._log_probabilities(prompts, responses, manner.sampling.temperature or 1.0)
        return [
            TokenOutput(
                token_ids=tokens,
                log_probs=logs,
                stop_reason="completed",
                extra_fields={"global_steps": self._step},
            )
            for tokens, logs in zip(responses, scores, strict=True)
        ]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _log_probabilities(
        self, prompts: list[list[int]], responses: list[list[int]], temperature: float
    ) -> list[list[float]]:
        """Of the tokens of the responses, at the temperature at which they were drawn."""
        rows = [torch.tensor(prompt + response) for prompt, response in zip(prompts, responses, strict=True)]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        logits = self._policy.model(input_ids=tokens).logits.float() / temperature
        logs = logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1).tolist()
        return [
            row[len(prompt) - 1 : len(prompt) - 1 + len(response)]
            for row, prompt, response in zip(logs, prompts, responses, strict=True)
        ]

    # What VeRL calls around training: on a CPU there is no memory to hand over.

    async def wake_up(self, *_: Any, **__: Any) -> None:
        """Nothing sleeps."""

    sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = wake_up
    resume_generation = start_profile = stop_profile = wake_up

    async def abort_all_requests(self, **_: Any) -> dict[str, Any]:
        """There are none between steps."""
        return {"aborted_count": 0, "request_ids": []}


class ServerAdapter(BaseRollout):  # type: ignore[misc]
    """The training process's side: sends the weights to its own server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self._server = server_name(int(os.environ["RANK"]) if replica_rank < 0 else replica_rank)

    async def resume(self, tags: list[str]) -> None:
        """Nothing sleeps."""

    async def release(self) -> None:
        """Nothing sleeps."""

    @torch.no_grad()  # type: ignore[untyped-decorator]
    async def update_weights(
        self,
        weights: Iterable[tuple[str, Any]],
        peft_config: dict[str, Any] | None = None,
        base_sync_done: bool = False,
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Send the adapter, or the base model's weights before the first of them."""
        # Gathering a sharded tensor takes all processes, so every one of them must go through the whole list.
        whole = {
            name: (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach().cpu().clone()
            for name, weight in weights
        }
        lora = dict(peft_config) if peft_config and base_sync_done else None
        await ray.get_actor(self._server).update_weights.remote(whole, lora, global_steps)


class Replica(RolloutReplica):  # type: ignore[misc]
    """VeRL's handle on a server."""

    async def launch_servers(self) -> None:
        """Start the server of this rank."""
        actor = ray.remote(Server).options(name=server_name(self.replica_rank), max_concurrency=self.max_concurrency)
        server = actor.remote(self.model_config.path, self.config.response_length)
        await server.ready.remote()
        self.servers, self._server_handle = [server], server
        self._server_address = server_name(self.replica_rank)


def server_name(rank: int) -> str:
    """The name of a server among Ray's actors."""
    return f"{CPU_ROLLOUT_NAME}_{rank}"


RolloutReplicaRegistry.register(CPU_ROLLOUT_NAME, lambda: Replica)
_ROLLOUT_REGISTRY[CPU_ROLLOUT_NAME, "async"] = f"{__name__}.ServerAdapter"
