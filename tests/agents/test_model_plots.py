"""Pictures for models: what is on them, in which colours, the same bytes each time, and drawn elsewhere."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from functools import cache
from unittest import mock

import numpy as np
import pytest

from llmzero_hpc.agents.llm import plots, samples
from llmzero_hpc.errors import MissingDependencyError
from llmzero_hpc.report.plots import BLUE, GREEN, GREY
from llmzero_hpc.search.metrics import MetricRow, Series
from llmzero_hpc.search.node import TransitionKind

CURVES, OVERLAY = plots.curves(samples.proposal()), plots.overlay(samples.stop())


@cache
def drawn(order_name: str) -> tuple[bytes, ...]:
    return plots.draw({"curves": CURVES, "overlay": OVERLAY}[order_name])


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return (imread(io.BytesIO(png))[..., :3] * 255).round().astype(int)


def has(picture: np.ndarray, colour: str) -> np.ndarray:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (abs(picture - wanted) <= 2).all(axis=-1)


def quarters(picture: np.ndarray) -> list[np.ndarray]:
    """The panels of a picture of four, without title and legend."""
    height, width = picture.shape[:2]
    top, bottom = height // 12, height - height // 12
    middle, centre = (top + bottom) // 2, width // 2
    return [
        picture[rows, columns]
        for rows in (slice(top, middle), slice(middle, bottom))
        for columns in (slice(0, centre), slice(centre, None))
    ]


@pytest.mark.parametrize(("name", "most", "size"), [("curves", 4, (1120, 840)), ("overlay", 2, (840, 630))])
def test_there_are_few_pictures_of_one_size(name: str, most: int, size: tuple[int, int]) -> None:
    assert 0 < len(drawn(name)) <= most
    assert {pixels(png).shape for png in drawn(name)} == {(size[1], size[0], 3)}


def test_the_same_order_gives_the_same_bytes() -> None:
    assert plots.draw(OVERLAY) == drawn("overlay")


def test_each_metric_has_its_panel() -> None:
    metrics = [[curve.metric for curve in picture.curves] for picture in CURVES.pictures]
    assert metrics == [
        ["val_score", "reward_mean"],
        ["kl", "entropy", "grad_norm", "clip_fraction"],
        ["response_length_mean", "response_clip_ratio", "zero_std_fraction", "policy_loss"],
    ]
    assert [[curve.metric for curve in picture.curves] for picture in OVERLAY.pictures] == [
        ["val_score"],
        ["reward_mean", "kl", "entropy", "response_length_mean"],
    ]
    for png in drawn("curves")[1:]:
        assert all(has(panel, BLUE).any() for panel in quarters(pixels(png)))


def test_the_parent_phase_is_blue_and_what_came_before_it_grey() -> None:
    for panel in quarters(pixels(drawn("curves")[1])):
        # the boundary lies in the middle of the axis, and the panels' axes begin at a sixth
        columns = np.flatnonzero(has(panel, BLUE).any(axis=0))
        assert columns.min() > panel.shape[1] * 0.4
        assert has(panel, GREY)[:, : int(panel.shape[1] * 0.4)].any()
    assert not any(has(pixels(png), GREEN).any() for png in drawn("curves"))


def test_this_run_is_blue_and_the_best_strategy_green() -> None:
    picture = pixels(drawn("overlay")[0])[120:525]
    blue, green = has(picture, BLUE), has(picture, GREEN)
    assert blue.any()
    assert green.any()
    # to the right of the beginning of this run, the best strategy lies above it
    right = slice(450, 675)
    assert np.flatnonzero(green[:, right].any(axis=1)).max() < np.flatnonzero(blue[:, right].any(axis=1)).min()
    for panel in quarters(pixels(drawn("overlay")[1])):
        assert has(panel, BLUE).any()
        assert has(panel, GREEN).any()


def test_nothing_touches_the_edge() -> None:
    for png in (*drawn("curves"), *drawn("overlay")):
        picture = pixels(png)
        for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
            assert edge.min() == 255


def test_of_a_long_strategy_only_the_end_is_drawn() -> None:
    request = samples.proposal()
    rows = tuple(MetricRow(step, {"val_score": 0.5, "kl": 0.1}) for step in range(1, 4001))
    own = Series(rows[3700:])
    order = plots.curves(replace(request, strategy=Series(rows), series=own))
    assert (order.first_step, order.focus, order.last_step) == (3101, 3701, 4000)
    assert all(3101 <= step <= 4000 for picture in order.pictures for curve in picture.curves for step, _ in curve.run)
    assert order.phase_starts == ((3101, "node 1"),)


def test_the_best_strategy_is_seen_from_far_ahead() -> None:
    request = samples.stop()
    late = replace(request.node, resume=replace(request.node.resume, step=2000))  # type: ignore[type-var]
    order = plots.overlay(replace(request, node=late, last_step=2090))
    assert order.first_step <= 180
    assert order.pictures[0].curves[0].best


def test_subtasks_that_moved_most_are_drawn() -> None:
    rows = tuple(
        MetricRow(step, {f"val_score/{n}": 0.1 * step * n for n in range(9)} | {"val_score": 0.3}) for step in (1, 2, 3)
    )
    order = plots.curves(replace(samples.proposal(), strategy=Series(rows), series=Series(rows), phases=()))
    assert [curve.metric for curve in order.pictures[-1].curves] == [f"val_score/{n}" for n in range(3, 9)]
    assert len(order.pictures) <= 4


@pytest.mark.parametrize(
    "series",
    [
        Series((MetricRow(7, {"val_score": 0.5, "kl": 0.0}),)),
        Series(
            tuple(MetricRow(s, {"kl": float("nan") if s > 2 else 1e-9 * s, "val_score/$x_|": -1e9}) for s in (1, 2, 3))
        ),
    ],
)
def test_odd_series_are_drawn(series: Series) -> None:
    request = replace(samples.proposal(TransitionKind.SCRATCH), series=series, strategy=series, phases=())
    assert plots.draw(plots.curves(request))


def test_without_rows_there_is_nothing_to_draw() -> None:
    order = plots.curves(replace(samples.proposal(), series=Series(), strategy=Series(), phases=()))
    assert plots.draw(order) == ()


def test_the_process_that_asks_does_not_load_matplotlib() -> None:
    code = (
        "import sys; from llmzero_hpc.agents.llm import prompts, samples; "
        "assert prompts.render('early_stopper', samples.stop()).images; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_a_missing_matplotlib_is_said() -> None:
    with mock.patch.object(plots, "find_spec", return_value=None), pytest.raises(MissingDependencyError) as caught:
        plots.draw(OVERLAY)
    assert "agents" in caught.value.next_step


def test_a_failure_to_draw_is_said() -> None:
    with (
        mock.patch.object(sys, "executable", "/bin/false"),
        pytest.raises(ChildProcessError, match="ended with code 1: no word"),
    ):
        plots.draw(OVERLAY)
