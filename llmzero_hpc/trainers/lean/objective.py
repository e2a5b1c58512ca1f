"""The loss of GRPO over responses of many lengths, equal to TRL's on the same batch, and one update by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from llmzero_hpc.trainers.decoding import Responses
from llmzero_hpc.trainers.lean.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmzero_hpc.search.configuration import Configuration
    from llmzero_hpc.trainers.lean.adapter import Adapter
    from llmzero_hpc.trainers.lean.policy import Shape

Tensor = Any
_DEVIATION_FLOOR = 1e-4
"""What TRL adds to the standard deviation of a group's rewards before it divides by it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The responses of a GRPO step with the prompt and the advantage of each."""

    prompts: Sequence[Sequence[int]]
    responses: Responses
    advantages: Tensor

    def sequences(self, rows: Sequence[int]) -> list[list[int]]:
        """Prompts and responses of some rows, without padding."""
        lengths = self.responses.lengths
        return [[*self.prompts[row], *self.responses.tokens[row, : lengths[row]].tolist()] for row in rows]


def advantages(rewards: Tensor, rollouts: int, *, normalized: bool) -> tuple[Tensor, float]:
    """The advantage of each response within its group, and the share of groups that all earned the same."""
    groups = rewards.view(-1, rollouts)
    centred = groups - groups.mean(1, keepdim=True)
    deviation = groups.std(1, keepdim=True)
    same = torch.isclose(deviation, torch.zeros_like(deviation)).float().mean().item()
    if normalized:
        centred = centred / (deviation + _DEVIATION_FLOOR)
    return centred.flatten(), same


class Objective:
    """The loss of a configuration.

    Args:
        configuration: of the phase.
        reference: the base model, which KL is measured from.
        chunk_rows: responses of one forward and backward pass.
    """

    def __init__(self, configuration: Configuration, reference: Policy, chunk_rows: int) -> None:
        self._configuration = configuration
        self._reference = reference
        self._chunk_rows = chunk_rows
        self._low = configuration.clip_range
        self._high = float(configuration.overrides.get("epsilon_high", configuration.clip_range))
        self._aggregation = str(configuration.overrides.get("loss_type", "dapo"))

    def backward(self, policy: Policy, batch: Batch, rows: Sequence[int], *, measure_kl: bool) -> dict[str, float]:
        """Add the gradient of the loss on some rows; means over their tokens, and the tokens that were computed.

        `policy` is merged with the parameters that gradients are for.
        """
        weights = self._token_weights(batch, rows)
        lengths = batch.responses.lengths
        count = float(lengths[torch.tensor(rows)].sum())
        with_kl = measure_kl or self._configuration.kl_coefficient != 0
        sums = dict.fromkeys(("policy_loss", "entropy", "clip_fraction", *(("kl",) if with_kl else ())), 0.0)
        trained = 0
        ordered = sorted(rows, key=lambda row: len(batch.prompts[row]) + int(lengths[row]))
        chunks = [ordered[at : at + self._chunk_rows] for at in range(0, len(ordered), self._chunk_rows)]
        total: Tensor = 0.0
        for chunk in chunks:
            places = torch.tensor(chunk)
            kept = torch.arange(batch.responses.tokens.shape[1]) < lengths[places, None]
            weight = weights[places, None].expand(kept.shape)[kept]
            advantage = batch.advantages[places, None].expand(kept.shape)[kept]
            old = batch.responses.logps[places][kept]
            logps, entropy, computed = self._scored(policy, batch, chunk)
            trained += computed
            ratio = (logps - old).exp()
            bounded = ratio.clamp(1 - self._low, 1 + self._high)
            surrogate = -torch.min(ratio * advantage, bounded * advantage)
            loss = surrogate
            if with_kl:
                with torch.no_grad():
                    reference = self._scored(self._reference, batch, chunk)[0]
                kl = (reference - logps).exp() - (reference - logps) - 1
                sums["kl"] += float(kl.detach().sum()) / count
                if self._configuration.kl_coefficient != 0:
                    loss = loss + self._configuration.kl_coefficient * kl
            total = total + (loss * weight).sum()
            clipped = ((ratio < 1 - self._low) & (advantage < 0)) | ((ratio > 1 + self._high) & (advantage > 0))
            sums["policy_loss"] += float((surrogate.detach() * weight).sum())
            sums["entropy"] += float(entropy.sum()) / count
            sums["clip_fraction"] += float(clipped.sum()) / count
        total.backward()
        return {**sums, "trained_tokens": float(trained), "scored_tokens": float(trained * with_kl)}

    def _token_weights(self, batch: Batch, rows: Sequence[int]) -> Tensor:
        """What each token of a response weighs in the loss of an update, by response."""
        lengths = batch.responses.lengths.float()
        if self._aggregation == "grpo":
            return 1 / (lengths * len(rows))
        if self._aggregation == "dr_grpo":
            return torch.full_like(lengths, 1 / (len(rows) * self._configuration.max_response_length))
        tokens = lengths.sum() / self._configuration.mini_batches
        if self._aggregation == "bnpo":
            tokens = lengths[torch.tensor(rows)].sum()
        return torch.full_like(lengths, 1 / float(tokens))

    def _scored(self, policy: Policy, batch: Batch, rows: Sequence[int]) -> tuple[Tensor, Tensor, int]:
        """Log-probability of each token of the responses, row by row; the entropy there; tokens computed."""
        sequences = batch.sequences(rows)
        longest = max(map(len, sequences))
        tokens = torch.tensor([[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences])
        starts = torch.tensor([len(batch.prompts[row]) for row in rows])[:, None] - 1
        ends = torch.tensor([len(sequence) for sequence in sequences])[:, None] - 1
        places = torch.arange(longest)
        before = (places >= starts) & (places < ends)
        logits = policy.logits(policy.hidden(tokens)[before]) / self._configuration.temperature
        shares = logits.log_softmax(-1)
        entropy = -(shares.detach().exp() * shares.detach()).sum(-1)
        chosen = tokens[:, 1:][before[:, :-1]]
        return shares.gather(1, chosen[:, None]).squeeze(1), entropy, tokens.numel()


class Learner:
    """An adapter in training, with its optimizer."""

    def __init__(
        self, shape: Shape, weights: Mapping[str, Tensor], adapter: Adapter, configuration: Configuration
    ) -> None:
        own = configuration.overrides
        self.adapter = adapter
        self._shape, self._weights = shape, weights
        self._gradient_clip = configuration.gradient_clip
        for matrix in adapter.parameters():
            matrix.requires_grad_()
        self.optimizer = torch.optim.AdamW(
            adapter.parameters(),
            lr=configuration.learning_rate,
            betas=(float(own.get("adam_beta1", 0.9)), float(own.get("adam_beta2", 0.999))),
            eps=float(own.get("adam_epsilon", 1e-8)),
            weight_decay=float(own.get("weight_decay", 0.0)),
            fused=True,
        )

    def policy(self) -> Policy:
        """The policy as it is now; gradients reach the adapter."""
        return Policy(self._shape, self._weights, self.adapter.changes())

    def update(self, objective: Objective, batch: Batch, rows: Sequence[int], *, measure_kl: bool) -> dict[str, float]:
        """One optimizer step on some rows of a batch; what `Objective.backward` returns, and the gradient's norm."""
        self.optimizer.zero_grad(set_to_none=True)
        values = objective.backward(self.policy(), batch, rows, measure_kl=measure_kl)
        norm = torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), self._gradient_clip)
        self.optimizer.step()
        return {**values, "grad_norm": float(norm)}
