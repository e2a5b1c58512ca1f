"""The report in a real browser: no complaint, no request, nothing wider than the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import report_samples as samples
from report_browser import EXECUTABLE, Browser

from llmzero_hpc.report.html import render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]

WIDER_THAN_THE_PAGE = """
[...document.querySelectorAll('body *')]
  .filter(item => !item.closest('.scroll > *') && item.getBoundingClientRect().right > innerWidth + 1)
  .map(item => item.tagName + '.' + item.className.toString())
"""
TEXT_OUTSIDE_ITS_DRAWING = """
[...document.querySelectorAll('svg text')].filter(text => {
  const inner = text.getBoundingClientRect(), outer = text.ownerSVGElement.getBoundingClientRect()
  return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1
    || inner.bottom > outer.bottom + 1
}).map(text => text.textContent)
"""
OVERLAPPING_TEXT = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
  return texts.flatMap(([one, a], index) => texts.slice(index + 1)
    .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
    .map(([other]) => one + ' | ' + other))
})
"""
LABEL_OVER_A_NODE = """
[...document.querySelectorAll('svg.tree g')].filter(group => {
  const shape = group.querySelector('circle, rect, path').getBoundingClientRect()
  return [...group.querySelectorAll('.label')].some(label => label.getBoundingClientRect().right > shape.left)
}).map(group => group.textContent)
"""
SMALLEST_TEXT = """
Math.min(...[...document.querySelectorAll('svg text')].map(text => {
  const drawing = text.ownerSVGElement, scale = drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width
  return parseFloat(getComputedStyle(text).fontSize) * scale
}))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    kinds = {
        "finished": samples.finished(),
        "running": samples.running(trainer="rehearsal"),
        "large": samples.large(),
    }
    found = {}
    for name, data in kinds.items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(render(data), encoding="utf-8")
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["finished", "running", "large"])
def test_the_report_reads_well_in_a_browser(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    url = pages[name].as_uri()
    browser.open(url, width, dark=dark)

    assert browser.evaluate("document.querySelectorAll('h2').length") >= 5, "the page is there"
    assert browser.evaluate("document.scrollingElement.scrollWidth") <= width
    assert browser.evaluate(WIDER_THAN_THE_PAGE) == []
    assert browser.evaluate(TEXT_OUTSIDE_ITS_DRAWING) == []
    assert browser.evaluate(OVERLAPPING_TEXT) == []
    assert browser.evaluate(LABEL_OVER_A_NODE) == []
    assert browser.evaluate(SMALLEST_TEXT) >= 10, "CSS pixels"
    assert browser.complaints == []
    assert browser.requests == [url]


def test_what_an_agent_wrote_is_shown_and_not_run(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["finished"].as_uri(), 1280)

    assert browser.evaluate("document.scripts.length") == 0
    assert samples.HOSTILE in browser.evaluate("document.body.innerText")


def test_the_browser_notices_what_it_should_forbid(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<div style='width:3000px'>wide</div><img src='gone.png'><script>console.error('no')</script>")
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(page.as_uri(), 1280)

    assert browser.evaluate("document.scrollingElement.scrollWidth") > 1280
    assert any("no" in complaint for complaint in browser.complaints)
    assert len(browser.requests) == 2
