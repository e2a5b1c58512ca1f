"""Each rule fires on its pathology, stays silent on a healthy phase, and says why with the numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playbook_samples import HEALTHY, SICK, phase, validations

from llmzero_hpc.agents.playbook.moves import Move
from llmzero_hpc.agents.playbook.rules import RULES, Stance, compatible, firing
from llmzero_hpc.agents.playbook.signals import Signals, read
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.search.metrics import MetricRow, Series

HEALTH = {"progress", "slowing", "unclear"}


@pytest.mark.parametrize("name", SICK)
def test_a_rule_leads_on_its_pathology(name: str) -> None:
    signals = read(phase(SICK[name]))
    leader = firing(signals)[0]
    assert leader.name == name
    assert all(leader.evidence(signals)), "it says on which numbers"


@pytest.mark.parametrize("name", [rule.name for rule in RULES if rule.name not in HEALTH])
def test_no_alarm_on_a_healthy_phase(name: str) -> None:
    assert name not in [rule.name for rule in firing(read(phase()))]


def test_every_rule_has_a_sample_or_a_test_here() -> None:
    assert {rule.name for rule in RULES} == {*SICK, "regression", "unclear", "last_phase"}


def test_some_rule_always_fires() -> None:
    for series in (Series(), validations([0.3]), Series((MetricRow(1, {"reward_mean": 0.5}),))):
        assert [rule.name for rule in firing(read(series))] == ["unclear"]


def test_a_phase_below_its_start_is_a_regression() -> None:
    before, after = validations([0.66, 0.68, 0.7]), validations([0.66, 0.67, 0.672], first_step=31)
    signals = read(after, Series(before.rows + after.rows))
    assert firing(signals)[0].name == "regression"
    assert signals.regression.before == 0.7
    assert signals.regression.after == 0.672


def test_one_validation_below_the_start_is_no_regression_yet() -> None:
    before, after = validations([0.6, 0.7]), validations([0.66], first_step=21)
    assert read(after, Series(before.rows + after.rows)).regression is None


def test_a_start_from_a_lucky_validation_is_no_regression() -> None:
    before, after = validations([0.40, 0.46, 0.41, 0.47]), validations([0.42, 0.43], first_step=41)
    assert read(after, Series(before.rows + after.rows)).regression is None


def test_a_kl_spike_is_reported_from_its_own_earlier_level() -> None:
    spike = read(phase(SICK["kl_spike"])).kl_spike
    assert spike.words == "kl rose from 0.004 at step 21 to 0.07 at step 45"
    assert spike.ratio == pytest.approx(17.5)
    assert spike.onset == 45


def test_kl_that_grows_evenly_from_zero_is_no_spike() -> None:
    assert read(phase({"kl": lambda t: 2.0 * t, "val_score": lambda t: 0.4})).kl_spike is None


def test_a_large_ratio_of_tiny_kl_is_no_spike() -> None:
    assert read(phase({**SICK["kl_spike"], "kl": lambda t: 1e-5 if t < 0.75 else 1e-3})).kl_spike is None


def test_a_smaller_spike_is_answered_more_gently() -> None:
    rule = next(rule for rule in RULES if rule.name == "kl_spike")
    small = read(phase({**SICK["kl_spike"], "kl": lambda t: 0.01 if t < 0.75 else 0.055}))
    large = read(phase({**SICK["kl_spike"], "kl": lambda t: 0.004 if t < 0.75 else 0.07}))
    assert rule.strength(small) < rule.strength(large) == 1.0
    kl = rule.remedies[0][0]
    assert kl.applied(Configuration(kl_coefficient=0.001)) == 0.005, "16-fold is answered by 5 times, as in the paper"


def test_a_clip_fraction_of_zero_throughout_is_a_single_mini_batch_and_no_pathology() -> None:
    assert read(phase({"clip_fraction": lambda t: 0.0, "val_score": lambda t: 0.4})).vanishing_gradient is None


def test_truncation_that_heals_while_validation_improves_is_no_pathology() -> None:
    healing = {"response_clip_ratio": lambda t: 0.7 - 0.5 * t}
    assert read(phase(healing)).truncation is None
    assert read(phase({**healing, "val_score": lambda t: 0.4})).truncation > 0.1


def test_values_that_are_not_finite_are_a_collapse() -> None:
    signals = read(phase({"grad_norm": lambda t: 0.3 if t < 0.9 else float("nan")}))
    assert signals.collapse.onset == 54
    assert firing(signals)[0].name == "collapse"


def test_an_exploding_gradient_counts_only_while_something_falls() -> None:
    explosion = {"grad_norm": lambda t: 0.3 if t < 0.9 else 40.0}
    assert read(phase(explosion)).collapse is None
    falling = {"val_score": lambda t: 0.6 - 0.3 * t * t, "reward_mean": lambda t: 0.6 - 0.3 * t * t}
    assert read(phase({**explosion, **falling})).collapse.metric == "grad_norm"
    awakening = {"grad_norm": lambda t: 1e-6 if t < 0.9 else 0.07}
    assert read(phase({**awakening, **falling})).collapse is None


def test_the_pace_of_validation_is_quoted_by_thirds() -> None:
    signals = read(validations([0.1, 0.3, 0.5, 0.6, 0.65, 0.66]))
    assert signals.validation.slopes == pytest.approx((0.02, 0.015, 0.003))
    pace = firing(signals)[0].evidence(signals)[1]
    assert pace == "its slope by thirds is 0.02, 0.015, 0.003 a step, its last gain 0.01"


def test_a_closing_validation_right_after_another_does_not_look_like_slowing() -> None:
    points = {10: 0.0, 20: 0.09, 30: 0.24, 31: 0.24}
    signals = read(Series(tuple(MetricRow(step, {"val_score": score}) for step, score in points.items())))
    assert firing(signals)[0].name == "progress"
    assert signals.validation.last == (31, 0.24)


def test_noise_alone_is_no_progress() -> None:
    signals = read(validations([0.40, 0.44, 0.38, 0.43, 0.39, 0.44]))
    assert not signals.improving
    assert signals.stalled


def test_rules_of_opposite_stance_are_not_mixed() -> None:
    for one in RULES:
        for other in RULES:
            if compatible(one, other):
                assert {one.stance, other.stance} != {Stance.TIGHTEN, Stance.LOOSEN}


def test_remedies_move_several_known_parameters_and_never_fixed_ones() -> None:
    for rule in RULES:
        assert rule.source
        for remedy in rule.remedies:
            names = [move.parameter for move in remedy]
            assert len(names) == len(set(names)) >= 2
            assert all(HYPERPARAMETERS[name].parameter_class.value != "fixed" for name in names)


def test_moves_can_be_weakened_and_reversed_but_capacity_accumulates() -> None:
    configuration = Configuration(learning_rate=1e-4, temperature=1.0, rollouts=8)
    double = Move("learning_rate", 2.0)
    assert double.applied(configuration) == 2e-4
    assert double.applied(configuration, 0.5) == pytest.approx(1.41e-4)
    assert double.reversed().applied(configuration) == 5e-5
    assert Move("temperature", shift=0.1).reversed().applied(configuration) == 0.9
    assert Move("rollouts", 1.5).applied(configuration) == 12
    assert Move("rollouts", 1.5).reversed() is None
    assert Move("rollouts", 1.01).applied(configuration) == 9, "an integer moves by one at least"


def test_signals_default_to_nothing_seen() -> None:
    assert Signals() == Signals(rows=0)
    assert not Signals().improving
    assert set(HEALTHY) >= {"kl", "entropy", "grad_norm"}


def test_kl_that_leaves_zero_while_the_policy_learns_is_no_spike() -> None:
    learning = {"val_score": lambda t: 0.6 * t, "reward_mean": lambda t: 0.6 * t}
    leaving_zero = {"kl": lambda t: 1e-4 + 0.1 * t**3}
    assert read(phase({**learning, **leaving_zero})).kl_spike is None
    jump = {"kl": lambda t: 0.004 if t < 0.8 else 0.1}
    assert read(phase({**learning, **jump})).kl_spike is not None


def test_where_next_to_no_prompt_teaches_anything_jumps_of_kl_are_no_spike() -> None:
    """KL rests on the few prompts that do; a policy that falls at the same time runs away all the same."""
    starved = {**SICK["kl_spike"], "zero_std_fraction": lambda t: 0.94, "val_score": lambda t: 0.2}
    steady = {**starved, "reward_mean": lambda t: 0.2}
    assert read(phase({**steady, "zero_std_fraction": lambda t: 0.3})).kl_spike is not None
    assert read(phase(steady)).kl_spike is None
    assert firing(read(phase(steady)))[0].name == "no_reward_variance"
    assert read(phase({**steady, "val_score": lambda t: 0.2 if t < 0.5 else 0.05})).kl_spike is not None


def test_the_last_phase_of_a_strategy_converges_unless_something_is_wrong() -> None:
    healthy, collapsed = replace(read(phase()), is_last=True), replace(read(phase(SICK["collapse"])), is_last=True)
    assert firing(healthy)[0].name == "last_phase"
    assert firing(healthy)[0].remedies[0][0] == Move("learning_rate", 0.5)
    assert "last_phase" not in [rule.name for rule in firing(collapsed)]
