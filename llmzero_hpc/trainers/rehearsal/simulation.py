"""A made-up response surface of GRPO: pure, deterministic, and with something to find for a search.

Two abilities grow under a policy that at first talks too long. What makes them grow changes on the way, as in
section 4.3 of the paper: short limits teach to stop and only then long ones pay, the best learning rate falls by an
order of magnitude, exploration has to be kept alive until it no longer matters. Nothing here is measured.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmzero_hpc.search.configuration import Configuration


@dataclass(frozen=True, slots=True)
class Surface:
    """What differs between tasks: tokens that a concise answer of each subtask needs, and a good learning rate."""

    short_length: float
    long_length: float
    learning_rate: float


CHAINS = Surface(short_length=16.0, long_length=52.0, learning_rate=6e-4)
FILES = Surface(short_length=1500.0, long_length=5000.0, learning_rate=5e-5)


@dataclass(frozen=True, slots=True)
class Policy:
    """The state of the made-up policy: all that a checkpoint carries.

    `short` and `long` are the shares of each subtask's problems that it solves when nothing cuts it off, `verbosity`
    is how much longer than needed it answers (0 is concise), `entropy` is in nats, `drift` is its KL divergence from
    the base model.
    """

    short: float = 0.12
    long: float = 0.03
    verbosity: float = 1.2
    entropy: float = 0.9
    drift: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What one step shows besides the new policy; the names are the canonical metrics'."""

    reward_mean: float
    policy_loss: float
    clip_fraction: float
    grad_norm: float
    response_length_mean: float
    response_clip_ratio: float
    zero_std_fraction: float


def train_step(
    policy: Policy, configuration: Configuration, surface: Surface, *, seed: int, step: int
) -> tuple[Policy, Observation]:
    """One GRPO step: the policy after it, and what is logged. The same arguments give the same result to the bit."""
    noise = random.Random(f"step {seed} {step}")  # noqa: S311 - a simulation
    cut_short = _cut_off(surface.short_length, policy.verbosity, configuration.max_response_length)
    cut_long = _cut_off(surface.long_length, policy.verbosity, configuration.max_response_length)
    heat = math.exp(-0.5 * max(0.0, configuration.temperature - 1.0))
    reward_short = policy.short * (1.0 - cut_short) * heat
    reward_long = policy.long * (1.0 - cut_long) * heat
    mixed_short = _mixed(reward_short, configuration.rollouts)
    mixed_long = _mixed(reward_long, configuration.rollouts)

    # Above 1: the steps are too long for what the policy is by now.
    progress = 0.5 * (policy.short + policy.long)
    overshoot = configuration.learning_rate / (surface.learning_rate * 4.0 ** (1.0 - 2.0 * progress))
    efficiency = math.exp(-0.5 * (math.log(overshoot) / 0.9) ** 2)
    excess = max(0.0, math.log(overshoot / 3.0)) * min(2.0, max(0.5, configuration.gradient_clip)) ** 0.5
    exploration = policy.entropy / (policy.entropy + 0.2)
    leash = 1.0 / (1.0 + 40.0 * configuration.kl_coefficient * policy.drift)
    dose = math.sqrt(configuration.batch_size / 128.0) * 0.16 * efficiency * exploration * leash
    dose *= math.exp(
        noise.gauss(0.0, 0.25 / math.sqrt(1.0 + configuration.batch_size * configuration.rollouts / 128.0))
    )

    spoiled = 0.12 * excess + 0.05 * max(0.0, policy.drift - 1.0)
    learned = Policy(
        short=_share((policy.short + dose * mixed_short * (1.0 - policy.short)) * (1.0 - spoiled)),
        # The long subtask is built from what the short one taught.
        long=_share(
            (policy.long + dose * mixed_long * (1.0 - policy.long) * (0.3 + 0.7 * policy.short)) * (1.0 - spoiled)
        ),
        # A group in which only the concise answers were not cut off teaches to be concise.
        verbosity=policy.verbosity * (1.0 - min(0.5, 2.0 * dose * (mixed_short * cut_short + mixed_long * cut_long))),
        entropy=_entropy(policy, configuration, dose, excess),
        drift=_drift(policy, configuration, overshoot, excess),
    )
    gradient = (0.05 + mixed_short + mixed_long) * math.sqrt(overshoot) * (1.0 + 4.0 * excess)
    lengths = [
        min(float(configuration.max_response_length), need * (1.0 + policy.verbosity))
        for need in (surface.short_length, surface.long_length)
    ]
    observation = Observation(
        reward_mean=_share(0.5 * (reward_short + reward_long) + noise.gauss(0.0, 0.01)),
        policy_loss=-0.02 * dose + noise.gauss(0.0, 0.002),
        clip_fraction=_share(0.02 * overshoot * (configuration.mini_batches - 1) * 0.2 / configuration.clip_range),
        grad_norm=gradient * math.exp(noise.gauss(0.0, 0.1)),
        response_length_mean=0.5 * sum(lengths) * math.exp(noise.gauss(0.0, 0.02)),
        response_clip_ratio=0.5 * (cut_short + cut_long),
        zero_std_fraction=1.0 - 0.5 * (mixed_short + mixed_long),
    )
    return learned, observation


def score(policy: Policy, surface: Surface, limit: int, *, salt: str) -> dict[str, float]:
    """Made-up accuracy of greedy decoding on each subtask; `salt` names the split, the seed and the step."""
    noise = random.Random(f"score {salt}")  # noqa: S311 - a simulation
    return {
        name: _share(ability * (1.0 - _cut_off(need, policy.verbosity, limit)) + noise.gauss(0.0, 0.006))
        for name, ability, need in (
            ("short", policy.short, surface.short_length),
            ("long", policy.long, surface.long_length),
        )
    }


def failing_step(rate: float, *, seed: int, node: int, first_step: int, total_steps: int) -> int | None:
    """The step in the middle of which this phase fails, or None for a phase that does not."""
    chance = random.Random(f"failure {seed} {node}")  # noqa: S311 - a simulation
    if chance.random() >= rate:
        return None
    return first_step + int(total_steps * chance.uniform(0.2, 0.9))


def initial_policy(seed: int) -> Policy:
    """The base model under a fresh adapter."""
    noise = random.Random(f"base {seed}")  # noqa: S311 - a simulation
    start = Policy()
    return replace(start, short=start.short * noise.uniform(0.95, 1.05))


def _cut_off(need: float, verbosity: float, limit: int) -> float:
    """Share of responses that reach the limit."""
    return 1.0 / (1.0 + math.exp(-6.0 * math.log(need * (1.0 + verbosity) / limit)))


def _mixed(reward: float, rollouts: int) -> float:
    """Share of groups whose rewards differ: only those teach."""
    return 1.0 - reward**rollouts - (1.0 - reward) ** rollouts


def _entropy(policy: Policy, configuration: Configuration, dose: float, excess: float) -> float:
    falling = 0.5 * dose + 0.5 * min(1.0, excess) + 0.02 * max(0.0, 1.0 - configuration.temperature)
    rising = 0.02 * max(0.0, configuration.temperature - 0.9) + 0.05 * max(0.0, configuration.clip_range - 0.2)
    rising += min(0.02, configuration.kl_coefficient) * policy.drift
    return min(2.0, max(0.01, policy.entropy * (1.0 - min(0.9, falling)) + rising))


def _drift(policy: Policy, configuration: Configuration, overshoot: float, excess: float) -> float:
    pulled = min(0.5, 4.0 * configuration.kl_coefficient)
    return min(50.0, policy.drift * (1.0 - pulled) + 0.004 * min(overshoot, 10.0) + 0.8 * excess)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
