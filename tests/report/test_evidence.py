# ruff: noqa: RUF001 - an en dash is what people read
"""What agents cited and what they cost, in the report and in the status."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import call_samples
import pytest
import report_samples as samples
from rich.console import Console

from llmzero_hpc.report.citations import Outcome
from llmzero_hpc.report.data import ReportData, to_json, without_clock
from llmzero_hpc.report.evidence import checked
from llmzero_hpc.report.html import render
from llmzero_hpc.report.reading import read
from llmzero_hpc.report.terminal import status_view
from llmzero_hpc.search.node import Rationale
from llmzero_hpc.store.daemon_file import Heartbeat, write_heartbeat
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.tree import Tree


@pytest.fixture
def search(tmp_path: Path) -> SearchDirectory:
    return call_samples.directory(tmp_path / "asked")


def status(data: ReportData) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=False).print(status_view(data))
    return stream.getvalue()


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.partition("</style>")[2]).split())


def citing(tree: Tree, node: int, *evidence: str) -> Tree:
    return tree.replacing(replace(tree[node], rationale=Rationale("tiny", "Because.", evidence)))


def test_citations_are_checked_against_the_strategy_that_the_proposer_saw() -> None:
    data = samples.data(call_samples.tree())
    right, wrong, unknown, change = checked(data, 1)

    assert (right.outcome, right.actual) == (Outcome.CONFIRMED, 0.568)
    highest = max(row.values["kl"] for row in data.series[0].rows if row.step >= 40)
    assert (wrong.outcome, wrong.actual) == (Outcome.CONTRADICTED, pytest.approx(highest))
    assert (unknown.outcome, unknown.actual) == (Outcome.NO_DATA, None)
    assert (change.outcome, change.text) == (None, call_samples.CITED[-1])


def test_a_citation_may_reach_back_through_the_strategy_but_not_past_what_counts_of_it() -> None:
    evidence = (
        "val_score, steps 41 to 60: change 0.06",  # from node 0's 0.55 at 40, or 0.568 at 50, to node 1's 0.61
        "val_score, step 90: last 0.7",  # of node 1, whose step 90 came after step 80, where node 5 resumed
        "val_score, step 100: last 0.79",  # of node 5 itself, which had not begun
    )
    data = samples.data(citing(samples.finished_tree(), 5, *evidence))

    assert [line.outcome for line in checked(data, 5)] == [Outcome.CONTRADICTED, Outcome.CONFIRMED, Outcome.NO_DATA]
    assert checked(data, 5)[0].actual == pytest.approx(0.61 - 0.568)


def test_steps_after_an_early_stop_are_no_data() -> None:
    stopped = samples.finished_tree()[3]
    assert stopped.stop is not None
    child = replace(samples.finished_tree()[7], parent=3, resume=None)
    tree = citing(samples.finished_tree().replacing(child), 7, "kl, step 100: last 5", "kl, step 101: last 5")
    assert [line.outcome for line in checked(samples.data(tree), 7)] == [Outcome.CONTRADICTED, Outcome.NO_DATA]


def test_metrics_that_were_not_read_contradict_nothing() -> None:
    data = samples.data(call_samples.tree())
    unread = replace(data, series={node: series for node, series in data.series.items() if node != 0})
    assert {line.outcome for line in checked(unread, 1)} == {None}
    assert checked(data, 0) == ()


def test_the_report_marks_each_citation_and_gives_the_data_s_value() -> None:
    data = samples.data(call_samples.tree())
    page = text_of(render(data))
    highest = max(row.values["kl"] for row in data.series[0].rows if row.step >= 40)

    assert "✓ val_score, steps 10 to 50: last 0.568; still rising" in page
    assert f"✗ kl, steps 40 to 50: highest 0.9; runs away the metrics: {highest:.4g}" in page
    assert "– reward_std, steps 1 to 50: mean 0.2; noisy" in page
    assert "evidence: 1 of 3 citations confirmed, 1 contradicted" in page
    assert page.count("✓ val_score, steps 10 to 50") == 2, "in the strategy and in the table"


def test_what_models_cite_is_escaped() -> None:
    hostile = "kl, steps 40 to 50: highest 0.9; <script>alert(1)</script>"
    page = render(samples.data(citing(samples.finished_tree(), 1, hostile)))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_costs_are_listed_by_phase_and_agent_with_their_total(search: SearchDirectory) -> None:
    data = read(search, metrics="all", costs=True)
    assert [(cost.node, cost.agent, cost.spending.calls) for cost in data.costs] == [
        (1, "proposer", 2), (2, "proposer", 1), (3, "early_stopper", 1),
    ]  # fmt: skip
    page = text_of(render(data))
    assert "1 proposer 2 18,000 4,000 1,500 1,000 24 s $0.0460" in page
    assert "3 early stopper 1 9,000 0 0 500 12 s $0.0230" in page
    assert "All 4 36,000 4,000 1,500 2,000 48 s $0.0920" in page
    assert "1 request brought no reply" in page
    assert to_json(data)["costs"][0]["spending"]["input_tokens"] == 18000


def test_without_prices_no_money_is_made_up(tmp_path: Path) -> None:
    data = read(call_samples.directory(tmp_path / "free", priced=False), metrics=(), costs=True)
    page = text_of(render(data))
    assert "All 4 36,000 4,000 1,500 2,000 48 s –" in page
    assert "No prices are set" in page
    assert "agents  tiny: 0 calls, 0 tokens\n" in status(data)


def test_status_has_one_line_of_what_the_model_came_to(search: SearchDirectory) -> None:
    beat = Heartbeat(
        host="login1",
        pid=1,
        boot_id="b",
        started_at=0.0,
        beat_at=samples.NOW,
        ticks=1,
        last_error="",
        calls={},
        waiting_for="",
        api_dollars=1.25,
        api_calls=14,
        api_tokens=182_000,
    )
    write_heartbeat(search, beat)
    data = read(search, metrics=())

    assert "agents  tiny: 14 calls, 182,000 tokens, $1.25\n" in status(data)
    assert to_json(data)["model"] == {"name": "tiny", "calls": 14, "tokens": 182_000, "dollars": 1.25}
    assert data.costs == ()
    assert without_clock(data).model is None


def test_a_baseline_asks_no_model_whatever_its_settings_say(tmp_path: Path) -> None:
    config = samples.config(agents=call_samples.settings(), method={"kind": "random"})
    record = SearchRecord.new(config, 4096, samples.CREATED_AT)
    assert read(SearchDirectory.create(tmp_path / "drawn", record)).model is None


def test_a_search_by_rules_speaks_of_no_model() -> None:
    data = samples.finished()
    assert "agents  " not in status(data)
    assert "What the agents cost" not in render(data)
    assert to_json(data)["model"] is None
