"""Citations: what a model claims about the metrics is compared with them, and survives being kept as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.report.citations import Observation, Outcome, Statistic, Verdict, check, parse
from llmzero_hpc.search.metrics import MetricRow, Series

SERIES = Series(
    tuple(
        MetricRow(step, {"kl": value, "grad_norm": 0.0004213} | ({"val_score": 0.41} if step == 30 else {}))
        for step, value in ((10, 0.004), (20, 0.0712), (30, 0.0651), (40, 0.0348))
    )
)


def observed(
    value: float, statistic: str = "highest", metric: str = "kl", steps: tuple[int, int] = (10, 40)
) -> Verdict:
    return check(Observation(metric, *steps, Statistic(statistic), value), SERIES)


@pytest.mark.parametrize(
    ("statistic", "value"),
    [("first", 0.004), ("last", 0.0348), ("lowest", 0.004), ("highest", 0.0712), ("mean", 0.0438), ("change", 0.0308)],
)
def test_each_statistic_is_that_of_the_steps_cited(statistic: str, value: float) -> None:
    assert observed(value, statistic) == Verdict(Outcome.CONFIRMED, pytest.approx(value, rel=1e-2))
    assert observed(value * 1.3, statistic).outcome is Outcome.CONTRADICTED


def test_only_steps_inside_the_range_count() -> None:
    assert observed(0.0712, steps=(25, 40)) == Verdict(Outcome.CONTRADICTED, 0.0651)
    assert observed(0.0651, steps=(25, 30)).outcome is Outcome.CONFIRMED
    assert observed(0.41, "last", "val_score", (1, 99)).outcome is Outcome.CONFIRMED


@pytest.mark.parametrize(
    ("cited", "outcome"),
    [
        (0.071, Outcome.CONFIRMED),
        (0.07, Outcome.CONFIRMED),
        (0.0712, Outcome.CONFIRMED),
        (0.08, Outcome.CONTRADICTED),
        (0.0651, Outcome.CONTRADICTED),
        (0.0, Outcome.CONTRADICTED),
        (-0.0712, Outcome.CONTRADICTED),
        (7.12, Outcome.CONTRADICTED),
        (float("nan"), Outcome.CONTRADICTED),
        (float("inf"), Outcome.CONTRADICTED),
    ],
)
def test_a_value_agrees_as_rounded(cited: float, outcome: Outcome) -> None:
    assert observed(cited).outcome is outcome


def test_a_round_figure_is_no_licence() -> None:
    lengths = Series((MetricRow(1, {"response_length_mean": 1430.0}), MetricRow(2, {"response_length_mean": 1630.0})))
    for cited, outcome in ((1600.0, Outcome.CONFIRMED), (1630.0, Outcome.CONFIRMED), (2000.0, Outcome.CONTRADICTED)):
        assert check(Observation("response_length_mean", 1, 2, Statistic.LAST, cited), lengths).outcome is outcome


def test_zero_stands_for_what_is_next_to_nothing() -> None:
    falling = Series(
        (MetricRow(1, {"entropy": 0.9}), MetricRow(2, {"entropy": 0.004}), MetricRow(3, {"entropy": 0.05}))
    )
    assert check(Observation("entropy", 2, 2, Statistic.LAST, 0.0), falling).outcome is Outcome.CONFIRMED
    assert check(Observation("entropy", 3, 3, Statistic.LAST, 0.0), falling).outcome is Outcome.CONTRADICTED


def test_what_was_not_reported_is_said() -> None:
    assert observed(0.1, metric="perplexity") == Verdict(Outcome.NO_DATA)
    assert observed(0.41, "last", "val_score", (31, 40)) == Verdict(Outcome.NO_DATA)
    assert check(Observation("kl", 1, 9, Statistic.MEAN, 0.1), Series()) == Verdict(Outcome.NO_DATA)


@given(
    st.lists(
        st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-9), min_size=1, max_size=20
    ),
    st.sampled_from(Statistic),
)
def test_what_the_data_give_is_confirmed_when_cited_with_three_digits(
    values: list[float], statistic: Statistic
) -> None:
    series = Series(tuple(MetricRow(step, {"kl": value}) for step, value in enumerate(values)))
    actual = check(Observation("kl", 0, len(values), statistic, 0.0), series).actual
    assert actual is not None
    cited = Observation("kl", 0, len(values), statistic, float(f"{actual:.3g}"))
    assert check(cited, series).outcome is Outcome.CONFIRMED


@given(
    st.builds(
        Observation,
        metric=st.sampled_from(["kl", "val_score", "val_score/two, or 3: of: them"]),
        first_step=st.integers(0, 10**6),
        last_step=st.integers(0, 10**6),
        statistic=st.sampled_from(Statistic),
        value=st.floats(allow_nan=False, allow_infinity=False),
        meaning=st.text("abc ;:,.0123456789\n", max_size=30).map(lambda text: " ".join(text.split())),
    )
)
def test_the_text_of_an_observation_gives_it_back(observation: Observation) -> None:
    assert parse(str(observation)) == observation


@pytest.mark.parametrize(
    "text", ["", "val_score rose from 0.2 to 0.3", "kl, steps 1 to 2: median 3", "kl, step 1: last ten"]
)
def test_other_text_cites_nothing(text: str) -> None:
    assert parse(text) is None
