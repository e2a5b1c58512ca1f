"""The report in a file: complete, self-contained, and harmless whatever an agent wrote."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import report_samples as samples

from llmzero_hpc.report.chart_svg import Line, line_chart, ticks
from llmzero_hpc.report.html import render
from llmzero_hpc.search.tree import Tree


class _Outline(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "href", "srcset", "xlink:href", "data"}
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def outline(page: str) -> _Outline:
    parser = _Outline()
    parser.feed(page)
    return parser


def test_the_page_says_the_result_first() -> None:
    text = " ".join(" ".join(outline(render(samples.finished())).text).split())

    for words in (
        "Best validation score 0.839",
        "Test score 0.838 measured once",
        "Gain over node 0 +0.271",
        "0.078 of 0.50 CPU-hours; 8 of 8 iterations",
        "73 % of the responses are cut off",
        "response_clip_ratio is 0.73",
        "Proposed by the playbook (rules, rule: truncation).",
        "Failed: loss is not finite at step 58",
        "Stopped: 0.04 below the best strategy",
        "playbook: fixed rules, no language model",
        "short 0.930",
    ):
        assert words in text


def test_nothing_is_loaded_and_nothing_runs() -> None:
    page = outline(render(samples.finished()))

    assert "script" not in page.tags
    assert set(page.addresses) == {"data:,"}
    assert not re.search(r"url\(|@import", render(samples.finished()))


def test_what_a_model_wrote_is_escaped() -> None:
    page = render(samples.finished())

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert samples.HOSTILE in "".join(outline(page).text)


@pytest.mark.parametrize("trainer", ["rehearsal", "trl"])
def test_simulated_is_written_large_for_a_rehearsal_alone(trainer: str) -> None:
    assert ("SIMULATED" in render(samples.finished(trainer=trainer))) is (trainer == "rehearsal")


def test_the_same_data_give_the_same_bytes() -> None:
    assert render(samples.finished()) == render(samples.finished())


def test_a_search_that_has_only_begun_has_a_page_too() -> None:
    empty = render(samples.data(Tree(), pulse_age=None))
    first = samples.running_tree().nodes[0]
    planned = Tree((type(first)(id=0, kind=first.kind, parent=None, seed=1, created_at=0.0),))

    assert "No phase yet." in empty
    assert "planned" in render(samples.data(planned))


def test_ticks_are_round_and_between_the_limits() -> None:
    assert ticks(0.12, 0.84) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(1, 120) == [50, 100] or len(ticks(1, 120)) >= 3
    assert ticks(2, 2) == [2]
    for low, high in ((0.0, 1e-9), (-3.0, 5.0), (0.56, 0.57), (0, 1e6)):
        found = ticks(low, high)
        assert 3 <= len(found) <= 11
        assert low <= found[0] < found[-1] <= high * (1 + 1e-9)


def test_a_chart_of_one_point_or_a_constant_is_drawn() -> None:
    assert "circle" in line_chart("one", [Line([(3, 0.5)])], x_label="step")
    assert "path" in line_chart("flat", [Line([(1, 0.0), (2, 0.0)])], x_label="step")
    assert line_chart("none", [Line([])], x_label="step") == ""
