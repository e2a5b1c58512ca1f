"""The made-up surface answers to its parameters as training does, and has something to find."""

from __future__ import annotations

import itertools
from statistics import mean

import pytest

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.trainers.rehearsal.simulation import (
    CHAINS,
    FILES,
    Observation,
    Policy,
    failing_step,
    initial_policy,
    score,
    train_step,
)

BASE = Configuration(
    max_response_length=52, learning_rate=6e-4, kl_coefficient=0.0, batch_size=16, rollouts=8, temperature=1.0
)
PHASE = 48
SEEDS = range(4)


def trained(
    configuration: Configuration, steps: int = PHASE, *, policy: Policy | None = None, seed: int = 0, first: int = 1
) -> tuple[Policy, list[Observation]]:
    state, seen = policy or initial_policy(seed), []
    for step in range(first, first + steps):
        state, observation = train_step(state, configuration, CHAINS, seed=seed, step=step)
        seen.append(observation)
    return state, seen


def total(policy: Policy) -> float:
    return mean(score(policy, CHAINS, 64, salt="test").values())


def strategy_score(phases: list[Configuration]) -> float:
    """Mean over seeds of the score after phases of equal length."""
    results = []
    for seed in SEEDS:
        policy = initial_policy(seed)
        for place, configuration in enumerate(phases):
            policy, _ = trained(configuration, policy=policy, seed=seed, first=1 + place * PHASE)
        results.append(total(policy))
    return mean(results)


def test_the_same_arguments_give_the_same_result() -> None:
    assert trained(BASE) == trained(BASE)
    assert trained(BASE, seed=1) != trained(BASE)


def test_training_helps_and_stays_within_its_range() -> None:
    policy, seen = trained(BASE, 200)
    assert total(policy) > total(initial_policy(0)) + 0.1
    for value in (policy.short, policy.long, *(observation.reward_mean for observation in seen)):
        assert 0.0 <= value <= 1.0


def test_too_high_a_learning_rate_shows_as_a_kl_spike_and_an_entropy_collapse() -> None:
    fine, _ = trained(BASE)
    burnt, seen = trained(BASE.changed(learning_rate=2e-2))
    assert burnt.drift > 10 * fine.drift
    assert burnt.entropy < 0.2 * fine.entropy
    assert total(burnt) < total(initial_policy(0))
    assert max(observation.grad_norm for observation in seen) > 5.0


def test_too_low_a_learning_rate_learns_next_to_nothing() -> None:
    idle, _ = trained(BASE.changed(learning_rate=1e-6))
    assert total(idle) == pytest.approx(total(initial_policy(0)), abs=0.03)


def test_too_short_a_limit_cuts_everything_off_and_teaches_nothing() -> None:
    policy, seen = trained(BASE.changed(max_response_length=8))
    assert seen[-1].response_clip_ratio > 0.9
    assert seen[-1].response_length_mean < 9
    assert policy.long <= initial_policy(0).long + 0.01
    assert total(policy) < total(trained(BASE)[0])


def test_a_short_limit_teaches_to_be_concise_and_a_long_one_does_not() -> None:
    short, _ = trained(BASE.changed(max_response_length=24))
    long, _ = trained(BASE.changed(max_response_length=200))
    assert short.verbosity < 0.8 * long.verbosity


def test_the_kl_coefficient_holds_the_policy_back() -> None:
    free, _ = trained(BASE, 100)
    held, _ = trained(BASE.changed(kl_coefficient=0.05), 100)
    assert held.drift < free.drift


def test_a_higher_temperature_keeps_entropy_and_costs_reward() -> None:
    hot, hot_seen = trained(BASE.changed(temperature=1.4))
    fine, fine_seen = trained(BASE)
    assert hot.entropy > fine.entropy
    assert hot_seen[0].reward_mean < fine_seen[0].reward_mean


def test_more_rollouts_leave_fewer_groups_without_a_difference() -> None:
    assert trained(BASE.changed(rollouts=32))[1][0].zero_std_fraction < trained(BASE)[1][0].zero_std_fraction


def test_extreme_values_of_the_table_give_finite_numbers() -> None:
    for rate, limit, rollouts, temperature in itertools.product((1e-8, 1e-1), (1, 131_072), (2, 256), (0.05, 3.0)):
        wild = BASE.changed(learning_rate=rate, max_response_length=limit, rollouts=rollouts, temperature=temperature)
        for surface in (CHAINS, FILES):
            policy = initial_policy(0)
            for step in range(1, 31):
                policy, seen = train_step(policy, wild, surface, seed=0, step=step)
            assert all(abs(value) < 1e6 for value in (policy.drift, policy.entropy, policy.verbosity, seen.grad_norm))


def test_a_strategy_of_phases_beats_every_static_configuration_of_a_grid() -> None:
    grid = itertools.product((20, 40, 64), (2e-4, 4e-4, 8e-4, 1.6e-3))
    best_static = max(
        strategy_score([BASE.changed(max_response_length=limit, learning_rate=rate)] * 3) for limit, rate in grid
    )
    stages = ((32, 1e-3), (64, 8e-4), (64, 2e-4))
    staged = [BASE.changed(max_response_length=limit, learning_rate=rate) for limit, rate in stages]
    assert strategy_score(staged) > best_static + 0.1
    # The order is what helps, not having had each configuration once.
    assert strategy_score(staged) > strategy_score(staged[::-1]) + 0.1


def test_failures_come_at_the_asked_rate_in_the_middle_and_always_the_same() -> None:
    steps = [failing_step(0.25, seed=seed, node=3, first_step=11, total_steps=20) for seed in range(1000)]
    assert steps == [failing_step(0.25, seed=seed, node=3, first_step=11, total_steps=20) for seed in range(1000)]
    failing = [step for step in steps if step is not None]
    assert 200 < len(failing) < 300
    assert all(11 < step <= 30 for step in failing)
    assert failing_step(0.0, seed=1, node=1, first_step=1, total_steps=10) is None
    assert failing_step(1.0, seed=1, node=1, first_step=1, total_steps=1) == 1
