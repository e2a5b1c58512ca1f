"""Summaries of series: few words, and the shape is still there."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import playbook_samples as samples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.agents.llm import summaries
from llmzero_hpc.agents.llm.summaries import pieces, shown, table, thinned
from llmzero_hpc.search.metrics import STEP_METRICS, MetricRow, Series

VALUES = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=60)


def course(*levels: tuple[int, float, float], noise: float = 0.0) -> tuple[tuple[int, float], ...]:
    """Straight stretches (points, from, to), one after another."""
    scatter = random.Random(3)
    values = [
        low + (high - low) * i / max(1, count - 1) + scatter.gauss(0, noise)
        for count, low, high in levels
        for i in range(count)
    ]
    return tuple(enumerate(values, start=1))


def rows_of(text: str) -> dict[str, list[str]]:
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {row[0]: row for row in cells[2:]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.41234, "0.412"),
        (0.62, "0.62"),
        (12.34, "12.3"),
        (1634.4, "1630"),
        (5e-5, "5e-5"),
        (-0.00042134, "-4.21e-4"),
        (0.0009999, "0.001"),
        (2.5e7, "2.5e7"),
    ],
)
def test_values_have_three_digits_in_few_signs(value: float, text: str) -> None:
    assert shown(value) == text


@given(st.floats(-1e12, 1e12, allow_subnormal=False))
def test_what_is_shown_is_the_value_to_three_digits(value: float) -> None:
    assert float(shown(value)) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_bend_a_jump_and_a_plateau_are_found(noise: float) -> None:
    found = pieces(course((40, 0.1, 0.1), (30, 0.1, 0.7), (50, 0.9, 0.9), noise=noise))
    assert len(found) == 3
    for at, expected in enumerate((40, 70)):
        assert abs(found[at].last[0] - expected) <= 4
    assert found[0].first == (1, pytest.approx(0.1, abs=0.03))
    assert found[1].last[1] == pytest.approx(0.7, abs=0.06)
    assert found[2].first[1] == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
def test_noise_about_a_line_has_no_bend(noise: float) -> None:
    assert len(pieces(course((200, 0.2, 0.5), noise=noise))) == 1


@given(VALUES)
def test_pieces_cover_the_course_in_order(values: list[float]) -> None:
    points = tuple((10 * step, value) for step, value in enumerate(values))
    found = pieces(points)
    assert 1 <= len(found) <= summaries.MOST_PIECES
    assert found[0].first[0] == points[0][0]
    assert found[-1].last[0] == points[-1][0]
    for piece, following in pairwise(found):
        assert piece.last[0] + 10 == following.first[0]
    spread = max(values) - min(values) + 1e-6
    assert all(min(values) - spread <= end[1] <= max(values) + spread for p in found for end in (p.first, p.last))


@given(VALUES, st.integers(8, 30))
def test_thinning_keeps_the_ends_the_best_and_the_newest(values: list[float], most: int) -> None:
    points = tuple(enumerate(values))
    kept = thinned(points, most)
    assert len(kept) == min(most, len(points))
    assert list(kept) == sorted(set(kept))
    assert {points[0], points[-1]} <= set(kept)
    assert max(values) in {value for _, value in kept}
    assert kept[-(most // 4) :] == points[-(most // 4) :]


def test_a_row_has_ends_extremes_slopes_and_pieces() -> None:
    text = table(Series(tuple(MetricRow(step, {"kl": value}) for step, value in course((30, 0, 0.29), (30, 2, 2)))))
    row = rows_of(text)["kl"]
    assert row[1:5] == ["0 @1", "2 @60", "0 @1", "2 @31"]
    assert row[5].split()[0] == "+0.01"
    assert row[5].split()[2] == "+0"
    assert row[6] == "1-30: 0 to 0.29; 31-60: 2 to 2"


@pytest.mark.parametrize("name", samples.SICK)
def test_every_reported_metric_is_there_once(name: str) -> None:
    series = samples.phase(samples.SICK[name])
    text = table(series)
    rows = rows_of(text)
    constant = text.partition("Constant: ")[2]
    for metric in series.names():
        assert (metric in rows) != (f"{metric} " in constant), metric


def test_what_breaks_is_said() -> None:
    text = table(Series((MetricRow(1, {"kl": 0.1}), MetricRow(2, {"kl": math.nan}), MetricRow(3, {"kl": math.inf}))))
    assert "Not finite, first at: kl @2." in text


def test_subtasks_are_named_by_strangers_and_may_be_many() -> None:
    names = [f"val_score/part {i} | `x`\nIGNORE" for i in range(summaries.MOST_SUBTASKS + 3)]
    text = table(Series(tuple(MetricRow(s, dict.fromkeys(names, s / 10)) for s in (1, 2))))
    assert "3 more subtasks are not shown." in text
    assert len(rows_of(text)) == summaries.MOST_SUBTASKS
    assert all(len(row) == 7 for row in rows_of(text).values())
    assert not any(line.startswith("IGNORE") for line in text.splitlines())


def test_nothing_reported_is_said() -> None:
    assert table(Series()) == "No metrics were reported."
    assert summaries.unreported(Series()) == tuple(STEP_METRICS)
    assert summaries.listed((), 5) == "none"
