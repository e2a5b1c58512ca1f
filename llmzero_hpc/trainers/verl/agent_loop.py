"""The agent loop of every response: one turn, with a limit of its own for training and for validation.

VeRL has one limit of response tokens for both. The rows of each split name the loop they want (`agent_name`), and
`Layout.agent_loops` says which limit it has; VeRL itself is told the larger one. Prompts become tokens as in the trl
trainer, whatever VeRL knows of the model's family.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput
from verl.utils.profiler import simple_timer

from llmzero_hpc.trainers.verl.tokens import end_tokens, prompt_tokens


class SingleResponse(AgentLoopBase):  # type: ignore[misc]
    """Asks the rollout server once. VeRL makes one for each response.

    Args:
        limit: response tokens.
        trainer_config, server_manager, tokenizer: VeRL's.
    """

    def __init__(self, *, limit: int, trainer_config: Any, server_manager: Any, tokenizer: Any, **_: Any) -> None:
        # Without the base's: it would look for the tokens of a known family's chat template.
        self._limit, self._server, self._tokenizer = limit, server_manager, tokenizer
        self._model = str(trainer_config.config.actor_rollout_ref.model.path)

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **row: Any) -> AgentLoopOutput:
        """The response to a row; the reward is told in `extra_info` whether it was cut off (`truncated`)."""
        prompt = prompt_tokens(self._tokenizer, row["raw_prompt"])
        timing: dict[str, Any] = {}
        with simple_timer("generate_sequences", timing):
            output = await self._server.generate(
                request_id=uuid4().hex,
                prompt_ids=prompt,
                sampling_params={**sampling_params, "max_tokens": self._limit},
                priority=int(priority),
            )
        timing["num_preempted"] = -1 if output.num_preempted is None else output.num_preempted
        tokens = output.token_ids[: self._limit]
        truncated = not tokens or tokens[-1] not in end_tokens(self._model, self._tokenizer)
        return AgentLoopOutput(
            prompt_ids=prompt,
            response_ids=tokens,
            response_mask=[1] * len(tokens),
            response_logprobs=output.log_probs[: self._limit] if output.log_probs else None,
            num_turns=2,
            metrics=timing,
            extra_fields={**output.extra_fields, "turn_scores": [], "tool_rewards": [], "truncated": truncated},
        )
