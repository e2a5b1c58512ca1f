"""What the playbook proposes: always valid, never twice the same, coordinated, and explained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playbook_samples import EVERY, HEALTHY, SICK, STEPS, node, phase, proposal_request

from llmzero_hpc.agents.base import Proposal, ProposalRequest, Sibling
from llmzero_hpc.agents.playbook import Playbook
from llmzero_hpc.agents.playbook.proposer import budgeted
from llmzero_hpc.agents.playbook.scratch import SPANS, draw
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS, Scalar
from llmzero_hpc.search.metrics import STEP_METRICS, MetricRow, Series
from llmzero_hpc.search.node import Attempt, Checkpoint, CheckpointReference, NodeStatus, TransitionKind

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALL = Configuration(
    max_response_length=64,
    learning_rate=5e-4,
    kl_coefficient=0.0,
    batch_size=8,
    epochs=0.12,
    lora_rank=8,
    lora_alpha=16,
)


def propose(request: ProposalRequest) -> Proposal:
    return Playbook().propose(request)


def tried(request: ProposalRequest, proposal: Proposal, gain: float | None, number: int = 1) -> ProposalRequest:
    sibling = Sibling(node(number, proposal.configuration, resume=CheckpointReference(0, proposal.resume_step)), gain)
    return replace(request, siblings=(*request.siblings, sibling))


@st.composite
def bounds_and_configuration(draw_: st.DrawFn) -> tuple[Configuration, dict[str, Bounds]]:
    """A valid configuration and bounds around it."""
    values, bounds = {}, {}
    for name, low, high in (
        ("max_response_length", 1, 9000), ("rollouts", 2, 64), ("batch_size", 1, 512), ("mini_batches", 1, 8),
    ):  # fmt: skip
        values[name] = draw_(st.integers(low, high))
    values["batch_size"] *= values["mini_batches"]
    for name, low, high in (
        ("learning_rate", 1e-7, 1e-2), ("kl_coefficient", 0.0, 1.0), ("temperature", 0.1, 2.0),
        ("clip_range", 0.05, 0.9), ("gradient_clip", 0.01, 10.0), ("epochs", 0.01, 5.0),
    ):  # fmt: skip
        values[name] = draw_(st.floats(low, high))
    values["advantage_normalization"] = draw_(st.booleans())
    for name in draw_(st.sets(st.sampled_from(sorted(set(values) - {"advantage_normalization"})))):
        row, value = HYPERPARAMETERS[name], values[name]
        below, above = draw_(st.floats(0.0, 1.0)), draw_(st.floats(1.0, 3.0))
        bounds[name] = Bounds(
            low=draw_(st.sampled_from([None, max(row.low, value * below), value])),
            high=draw_(st.sampled_from([None, min(row.high, value * above + 0.5), value])),
        )
    configuration = Configuration(**values)
    assert configuration.problems(bounds) == []
    return configuration, bounds


number = st.one_of(st.floats(0.0, 1.0), st.floats(-1e3, 1e6), st.just(float("nan")), st.just(float("inf")))


@st.composite
def requests(draw_: st.DrawFn) -> ProposalRequest:
    configuration, bounds = draw_(bounds_and_configuration())
    if draw_(st.booleans()):
        series = phase(SICK[draw_(st.sampled_from(sorted(SICK)))])
    else:
        names = draw_(st.lists(st.sampled_from(sorted(STEP_METRICS)), max_size=6, unique=True))
        rows = draw_(st.integers(0, 12))
        series = Series(tuple(MetricRow(i + 1, {n: draw_(number) for n in names}) for i in range(rows)))
    points = tuple(Checkpoint(step, score) for step, score in series.points("val_score")) or (Checkpoint(5, 0.2),)
    kind = draw_(st.sampled_from([TransitionKind.EVOLVE, TransitionKind.SCRATCH]))
    parent = node(
        0, configuration, kind=TransitionKind.SCRATCH, checkpoints=points,
        total_steps=draw_(st.one_of(st.none(), st.integers(1, 300))),
    )  # fmt: skip
    return ProposalRequest(
        kind=kind, parent=parent, series=series, strategy=series,
        checkpoints=() if kind is TransitionKind.SCRATCH else points, siblings=(), best_score=0.3, bounds=bounds,
        train_rows=draw_(st.integers(1, 20_000)), validate_every_steps=draw_(st.integers(1, 30)),
        iterations_left=3, seed=draw_(st.integers(0, 2**31 - 1)),
    )  # fmt: skip


def without_length(configuration: Configuration) -> dict[str, Scalar]:
    return {name: value for name, value in configuration.values().items() if name != "epochs"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests(), st.lists(st.sampled_from([None, -0.1, 0.0, 0.1]), min_size=3, max_size=3))
def test_every_proposal_is_valid_repeatable_and_unlike_its_siblings(
    request: ProposalRequest, gains: list[float | None]
) -> None:
    free = request.bounds.get("learning_rate", Bounds()) == Bounds()
    for number, gain in enumerate(gains, start=1):
        proposal = propose(request)
        assert proposal == propose(request)
        assert proposal.configuration.problems(request.bounds) == []
        assert proposal.configuration.steps(request.train_rows) >= 1
        assert proposal.rationale.author == "playbook"
        assert proposal.rationale.diagnosis
        if request.kind is TransitionKind.SCRATCH:
            assert proposal.resume_step is None
        else:
            assert request.parent.configuration.fixed_changes(proposal.configuration) == []
            assert proposal.resume_step in {point.step for point in request.checkpoints}
        if free:
            known = [request.parent.configuration, *(sibling.node.configuration for sibling in request.siblings)]
            assert without_length(proposal.configuration) not in [without_length(other) for other in known]
        request = tried(request, proposal, gain, number)


@pytest.mark.parametrize("name", SICK)
def test_changes_are_coordinated_and_named_by_their_rule(name: str) -> None:
    request = proposal_request(phase(SICK[name]))
    proposal = propose(request)
    changed = set(request.parent.configuration.differences(proposal.configuration)) - {"epochs", "mini_batches"}
    assert len(changed) >= 2
    assert proposal.rationale.rule == name
    for parameter in changed:
        assert any(line.startswith(f"{parameter}: ") for line in proposal.rationale.evidence)


def test_a_plateau_raises_learning_rate_and_kl_coefficient_together() -> None:
    proposal = propose(proposal_request(phase(SICK["plateau"])))
    assert proposal.configuration.learning_rate == 1e-4
    assert proposal.configuration.kl_coefficient == 2e-3


def test_several_pathologies_are_answered_at_once() -> None:
    both = phase({**SICK["kl_spike"], **SICK["truncation"]})
    proposal = propose(proposal_request(both))
    assert proposal.rationale.rule == "kl_spike"
    assert proposal.configuration.kl_coefficient == pytest.approx(5e-3)
    assert proposal.configuration.max_response_length > 6144
    assert any(line.startswith("also truncation: 40% of") for line in proposal.rationale.evidence)


def test_the_sibling_that_lost_is_learned_from() -> None:
    first = proposal_request(phase(SICK["plateau"]), configuration=SMALL)
    raised = propose(first)
    assert raised.configuration.learning_rate > SMALL.learning_rate
    second = propose(tried(first, raised, gain=-0.03))
    assert second.configuration.learning_rate < SMALL.learning_rate
    assert "node 1 with learning_rate 0.001 lost 0.03: the other way this time" in second.rationale.evidence


def test_the_sibling_that_won_is_not_contradicted() -> None:
    first = proposal_request(phase(SICK["plateau"]), configuration=SMALL)
    raised = propose(first)
    second = propose(tried(first, raised, gain=+0.03))
    assert second.configuration.learning_rate == raised.configuration.learning_rate
    assert second.configuration.rollouts > SMALL.rollouts, "with the next remedy beside it"
    assert without_length(second.configuration) != without_length(raised.configuration)
    assert any(line.endswith("gained 0.03: taken over") for line in second.rationale.evidence)


def test_rules_that_fire_again_and_again_stay_in_the_usual_ranges() -> None:
    configuration = SMALL
    for _ in range(12):
        configuration = propose(proposal_request(phase(SICK["plateau"]), configuration=configuration)).configuration
    assert configuration.temperature <= 1.2
    assert configuration.kl_coefficient <= 0.1
    assert configuration.batch_size * configuration.rollouts >= 32


def test_what_the_user_set_beyond_the_usual_range_is_not_pulled_back() -> None:
    hot = SMALL.changed(temperature=1.5)
    assert propose(proposal_request(phase(SICK["plateau"]), configuration=hot)).configuration.temperature == 1.5


def test_the_batch_changes_by_whole_factors() -> None:
    request = proposal_request(phase(SICK["plateau"]), configuration=SMALL.changed(batch_size=64))
    for number in range(1, 6):
        proposal = propose(request)
        assert proposal.configuration.batch_size in {32, 64, 128}
        request = tried(request, proposal, 0.01, number)


def test_a_sibling_that_still_runs_teaches_nothing_but_is_not_repeated() -> None:
    first = proposal_request(phase(SICK["plateau"]), configuration=SMALL)
    raised = propose(first)
    running = Sibling(node(1, raised.configuration, status=NodeStatus.RUNNING), None)
    second = propose(replace(first, siblings=(running,)))
    assert second.configuration != raised.configuration
    assert not any("node 1" in line for line in second.rationale.evidence)


def test_capacity_is_not_turned_back_by_a_lesson() -> None:
    first = proposal_request(phase(), configuration=SMALL)
    longer = propose(first)
    assert longer.configuration.max_response_length > SMALL.max_response_length
    second = propose(tried(first, longer, gain=-0.1))
    assert second.configuration.max_response_length == SMALL.max_response_length
    assert second.configuration.rollouts >= SMALL.rollouts


def test_against_damage_the_rule_insists_with_its_next_remedy() -> None:
    first = proposal_request(phase(SICK["collapse"]))
    one = propose(first)
    two = propose(tried(first, one, gain=-0.1))
    for proposal in (one, two):
        assert proposal.rationale.rule == "collapse"
        assert proposal.configuration.learning_rate < 5e-5
    assert two.configuration != one.configuration


def test_truncation_is_answered_by_a_longer_limit_then_by_a_shorter_one() -> None:
    first = proposal_request(phase(SICK["truncation"]), configuration=SMALL)
    longer = propose(first)
    shorter = propose(tried(first, longer, gain=-0.1))
    assert shorter.configuration.max_response_length < 64 < longer.configuration.max_response_length


def test_truncation_at_the_highest_limit_that_is_allowed_is_answered_otherwise() -> None:
    bounds = {"max_response_length": Bounds(high=64)}
    proposal = propose(proposal_request(phase(SICK["truncation"]), configuration=SMALL, bounds=bounds))
    assert proposal.configuration.max_response_length < 64


def test_after_damage_it_resumes_from_before_it() -> None:
    request = proposal_request(phase(SICK["collapse"]))
    assert propose(request).resume_step == 25, "the best validation before step 30, where the collapse began"


def test_without_damage_it_resumes_from_the_last_unless_that_is_clearly_worse() -> None:
    assert propose(proposal_request(phase())).resume_step == STEPS
    dipped = phase({"val_score": lambda t: 0.2 + 0.4 * t if t < 1 else 0.45})
    assert propose(proposal_request(dipped)).resume_step == STEPS - EVERY


def test_a_phase_is_about_as_long_as_its_parent() -> None:
    def steps(change: dict[str, Scalar]) -> int:
        request = proposal_request(phase(), configuration=SMALL)
        return budgeted(SMALL.changed(**change), SMALL, request).steps(4096)

    assert steps({"learning_rate": 1e-3}) == STEPS
    assert steps({"batch_size": 16}) == 42, "STEPS / sqrt 2"
    assert steps({"batch_size": 4}) == 85
    assert steps({"batch_size": 1}) == 2 * STEPS, "never more than twice"
    assert steps({"rollouts": 12}) == 49


def test_a_longer_limit_costs_nothing_where_responses_do_not_reach_it() -> None:
    curves = {"response_length_mean": lambda t: 30.0, "response_clip_ratio": lambda t: 0.0}
    request = proposal_request(phase(curves), configuration=SMALL)
    assert budgeted(SMALL.changed(max_response_length=128), SMALL, request).steps(4096) == STEPS


def test_a_parent_without_metrics_is_answered_too() -> None:
    request = replace(proposal_request(Series()), checkpoints=(Checkpoint(10, 0.1),))
    proposal = propose(request)
    assert proposal.rationale.rule == "unclear"
    assert proposal.resume_step == 10


def test_overrides_stay_with_the_strategy() -> None:
    configuration = replace(SMALL, overrides={"weight_decay": 0.1})
    assert propose(proposal_request(phase(), configuration=configuration)).configuration.overrides == {
        "weight_decay": 0.1
    }


class TestScratch:
    def starts(self, count: int, bounds: Mapping[str, Bounds] | None = None) -> list[Configuration]:
        request = proposal_request(phase(), kind=TransitionKind.SCRATCH, configuration=SMALL, bounds=bounds)
        for number in range(1, count + 1):
            request = tried(request, replace(propose(request), resume_step=0), 0.0, number)
        return [sibling.node.configuration for sibling in request.siblings]

    def drawn(self, count: int) -> list[Configuration]:
        """Those that are not planned: all but the second and third, as the first of these is their root."""
        starts = self.starts(count + 2)
        return starts[:1] + starts[3:]

    def test_starts_differ_in_every_drawn_parameter(self) -> None:
        starts = self.drawn(6)
        for name in set(SPANS) - {"batch_size", "kl_coefficient"}:
            assert len({start.value(name) for start in starts}) >= 5

    def test_limits_are_drawn_below_and_above_the_reference(self) -> None:
        lengths = [start.max_response_length for start in self.drawn(8)]
        assert min(lengths) < 48
        assert max(lengths) > 64

    def test_learning_rates_spread_over_the_space(self) -> None:
        rates = [start.learning_rate for start in self.drawn(6)]
        assert max(rates) > 4 * min(rates)

    def test_bounds_widen_and_narrow_the_draws(self) -> None:
        bounds = {"max_response_length": Bounds(low=12, high=64), "learning_rate": Bounds(low=4e-4, high=6e-4)}
        for start in self.starts(6, bounds):
            assert start.problems(bounds) == []

    def test_fixed_parameters_and_what_is_not_drawn_stay(self) -> None:
        for start in self.starts(3):
            assert SMALL.fixed_changes(start) == []
            assert start.rollouts == SMALL.rollouts

    def test_another_seed_draws_other_starts(self) -> None:
        assert draw(SMALL, [SMALL], {}, 1) != draw(SMALL, [SMALL], {}, 2)

    def test_nothing_free_repeats_the_reference(self) -> None:
        pinned = {name: Bounds(low=float(SMALL.value(name)), high=float(SMALL.value(name))) for name in SPANS}
        assert draw(SMALL, [SMALL], pinned, 1) == SMALL

    @pytest.mark.parametrize("name", ["max_response_length", "learning_rate", "temperature"])
    def test_where_no_more_is_allowed_half_of_the_draws_keep_the_reference(self, name: str) -> None:
        value = float(SMALL.value(name))
        draws = [draw(SMALL, [], {name: Bounds(high=value)}, seed).value(name) for seed in range(60)]
        assert max(draws) == value
        assert 15 <= draws.count(SMALL.value(name)) <= 45


def test_the_healthy_sample_reports_only_known_metrics() -> None:
    assert set(HEALTHY) <= set(STEP_METRICS)


def _with_strategy_left(hours: float | None, seconds_a_step: float = 36.0) -> ProposalRequest:
    request = proposal_request(phase(HEALTHY))
    attempt = Attempt(1, "lz-1", 0.0, device_seconds=seconds_a_step * STEPS)
    return replace(
        request,
        parent=replace(request.parent, attempts=(attempt,), last_step=STEPS),
        strategy_hours_left=hours,
    )


def test_a_phase_is_no_longer_than_its_strategy_pays_for_and_leaves_no_rest_that_is_too_short() -> None:
    def steps(hours: float | None) -> int:
        request = _with_strategy_left(hours)
        return propose(request).configuration.steps(request.train_rows)

    free = steps(None)
    hour = steps(0.3) / 0.3
    assert 0 < steps(0.3) < free
    assert steps(0.15) == pytest.approx(hour * 0.15, rel=0.1)
    enough = free / hour
    assert steps(3 * enough) == free
    assert steps(1.2 * enough) == pytest.approx(1.2 * free, rel=0.05)


def _fresh_start(*earlier: Configuration, bounds: Mapping[str, Bounds] | None = None) -> Configuration:
    """After the root and other fresh starts, under a phase that has got somewhere else."""
    siblings = tuple(
        Sibling(node(number, one, kind=TransitionKind.SCRATCH), None) for number, one in enumerate(earlier)
    )
    request = proposal_request(
        phase(HEALTHY),
        kind=TransitionKind.SCRATCH,
        configuration=SMALL.changed(learning_rate=3e-3, rollouts=12),
        siblings=siblings,
        bounds=bounds,
    )
    return propose(request).configuration


def test_the_first_fresh_start_is_the_root_with_little_capacity_and_the_second_doubts_that() -> None:
    first = _fresh_start(SMALL)
    changes = SMALL.changed(epochs=first.epochs).differences(first)
    assert changes == {"max_response_length": (64, 22), "learning_rate": (5e-4, 1e-3), "batch_size": (8, 16)}
    second = _fresh_start(SMALL, first)
    assert SMALL.changed(epochs=second.epochs).differences(second) == {"learning_rate": (5e-4, 1e-3)}
    third = _fresh_start(SMALL, first, second)
    assert third.learning_rate not in {5e-4, 1e-3}


def test_a_planned_start_that_the_bounds_forbid_is_left_out() -> None:
    pinned = _fresh_start(SMALL, bounds={"max_response_length": Bounds(low=64)})
    assert SMALL.changed(epochs=pinned.epochs).differences(pinned) == {"learning_rate": (5e-4, 1e-3)}
    slow = {"max_response_length": Bounds(low=64), "learning_rate": Bounds(high=5e-4)}
    drawn = _fresh_start(SMALL, bounds=slow)
    assert drawn.kl_coefficient != SMALL.kl_coefficient
