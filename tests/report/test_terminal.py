"""What people read in a terminal: 80 columns, no colour, a pipe, a terminal without UTF-8."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import report_samples as samples
from rich.console import Console

from llmzero_hpc.errors import StorageError
from llmzero_hpc.report import terminal
from llmzero_hpc.report.braille import plot
from llmzero_hpc.report.terminal import LiveView
from llmzero_hpc.report.terminal_phase import show_view
from llmzero_hpc.search.node import CheckpointReference, Node, TransitionKind
from llmzero_hpc.search.tree import Tree

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmzero_hpc.report.data import ReportData


def shown(content: RenderableType, width: int = 80, encoding: str = "utf-8", height: int = 40) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=stream, width=width, height=height, force_terminal=False).print(content)
    stream.flush()
    return raw.getvalue().decode(encoding)


VIEWS = {
    "status": terminal.status_view,
    "tree": terminal.tree_view,
    "strategy": terminal.strategy_view,
    "show": lambda data: show_view(data, 3),
}


SEARCHES = {"finished": samples.finished(), "running": samples.running(), "empty": samples.data(Tree(), pulse_age=None)}


@pytest.mark.parametrize(
    ("view", "search"),
    [(view, search) for view in VIEWS for search in SEARCHES if view != "show" or SEARCHES[search].nodes],
)
def test_every_view_stays_within_80_columns_without_escape_codes(view: str, search: str) -> None:
    text = shown(VIEWS[view](SEARCHES[search]))

    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("view", VIEWS)
def test_rehearsal_says_that_it_is_simulated_in_every_view(view: str) -> None:
    assert "SIMULATED" in shown(VIEWS[view](samples.running(trainer="rehearsal")))
    assert "SIMULATED" not in shown(VIEWS[view](samples.running()))


@pytest.mark.parametrize("view", VIEWS)
def test_a_terminal_without_utf_8_gets_ascii(view: str) -> None:
    text = shown(VIEWS[view](samples.running()), encoding="ascii")

    assert text.isascii()
    assert "@" in text or "phase" in text


def test_status_says_where_the_search_stands() -> None:
    text = shown(terminal.status_view(samples.running()))

    assert "chains-demo  running  controller alive, heard 3 s ago (login1, pid 4242)" in text
    assert "best  0.711 validation, phase 1, step 80, +0.143 over node 0" in text
    assert "5 of 8, 3 left" in text
    assert "CPU-hours" in text
    assert "phase 3, steps 81 to 120, now at 101" in text
    assert "phase 3 trains (21 of 40 steps); phase 4 waits in the queue" in text


def test_status_says_paused_gone_and_waiting_in_words() -> None:
    assert "paused" in shown(terminal.status_view(samples.running(paused=True)))
    gone = shown(terminal.status_view(samples.running(pulse_age=7200.0)))
    assert "controller gone" in gone
    assert "said nothing for 2 h" in gone
    waiting = shown(terminal.status_view(samples.running(error="slurm_load_jobs: timeout")))
    assert "waiting" in waiting
    assert "slurm_load_jobs: timeout" in waiting


def test_a_phase_is_one_line_of_the_tree() -> None:
    lines = shown(terminal.tree_view(samples.finished())).splitlines()

    assert lines[0].split() == ["●", "0", "scratch", "✓", "completed", "0.568"]
    assert lines[2] == "│ ├─○   3 evolve  ■ stopped early 0.700   rollouts 8>16"
    assert lines[3].startswith("│ └─●   5 evolve  ✓ completed     0.839 ★ response 64>52, lr 5e-4>3.5e-4")
    assert lines[6] == "├─○     2 evolve  ✗ failed        –       lr 1e-3>0.02, temp 1>1.3"  # noqa: RUF001 - no score
    assert lines[7] == "└─○     4 debug   ✓ completed     0.640   repairs 2: lr 0.02>1e-3"
    assert len(lines) == 9, "eight phases and what the marks mean"


def test_a_tree_without_room_keeps_what_matters() -> None:
    text = shown(terminal.status_view(samples.finished(), height=5))

    assert " 5 evolve" in text
    assert "★" in text
    assert "4 more; `llmzero-hpc tree` shows all" in text or "3 more; `llmzero-hpc tree` shows all" in text


def test_a_chain_of_fifty_phases_keeps_its_words_in_80_columns() -> None:
    first = samples.finished_tree()[0]
    nodes: list[Node] = [first]
    for number in range(1, 50):
        resume = CheckpointReference(number - 1, nodes[-1].first_step + 49)
        nodes.append(
            replace(first, id=number, kind=TransitionKind.EVOLVE, parent=number - 1, resume=resume, checkpoints=())
        )
    lines = shown(terminal.tree_view(samples.data(Tree(tuple(nodes))))).splitlines()

    assert all("completed" in line for line in lines[:50])


def test_the_best_strategy_as_a_table_with_its_test_score() -> None:
    text = shown(terminal.strategy_view(samples.finished()))

    assert "81-120   0.839   +0.128   response 64>52, lr 5e-4>3.5e-4, batch 8>4," in text
    assert "validation 0.839 at phase 5, step 120  (+0.271 over node 0)" in text
    assert "test 0.838, measured once, phase 5, step 120" in text


def test_a_phase_is_shown_with_what_changed_why_and_what_it_reached() -> None:
    text = shown(show_view(samples.finished(), 3))

    assert "Phase 3  evolve (from phase 1, step 80)" in text
    assert "* rollouts                 16  (was 8 in phase 1)" in text
    assert "Half of the groups have no signal." in text
    assert "proposed by the playbook (rules, variance)" in text
    assert "★ step 100    0.700" in text
    assert "1  job 4003: preempted, queued for 1 s, ran for 4 s; 4 s of device time" in text
    assert "0.04 below the best strategy" in text


def test_a_phase_shows_its_log_path_where_it_is_given() -> None:
    assert "/somewhere/trainer.log" in shown(show_view(samples.finished(), 3, Path("/somewhere/trainer.log")))


def test_a_phase_that_is_not_there_is_an_index_error() -> None:
    for number in (-1, 8):
        with pytest.raises(IndexError):
            show_view(samples.finished(), number)


def test_what_an_agent_wrote_is_text_and_no_markup() -> None:
    text = shown(show_view(samples.finished(), 7), width=200)

    assert samples.HOSTILE in text


def test_the_live_view_looks_anew_and_survives_a_look_that_fails() -> None:
    looks: list[ReportData | StorageError] = [samples.running(), StorageError("disk gone"), samples.finished()]

    def look() -> ReportData:
        answer = looks.pop(0)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    view = LiveView(look)
    assert "running" in shown(view)
    assert "running" in shown(view), "the last good look stays"
    assert "finished" in shown(view)


@pytest.mark.parametrize("height", [24, 30, 50])
def test_the_live_view_fits_the_terminal(height: int) -> None:
    nodes = list(samples.running_tree().nodes)
    nodes += [replace(nodes[3], id=number) for number in (5, 6)]
    nodes += [replace(nodes[0], id=number, parent=number % 4) for number in range(7, 60)]
    data = samples.data(Tree(tuple(nodes)), trainer="rehearsal", error="the cluster does not answer " * 5)
    lines = shown(LiveView(lambda: data), height=height).splitlines()

    assert len(lines) <= height
    assert any("★" in line for line in lines), "the best phase is among those that are shown"
    assert any("now at 101" in line for line in lines), "a curve of a running phase"


def test_the_live_view_is_drawn_by_rich_live() -> None:
    from rich.live import Live

    raw = io.StringIO()
    looks = iter([samples.running(), *[samples.finished()] * 9])
    console = Console(file=raw, width=80, height=50, force_terminal=True)
    with Live(LiveView(lambda: next(looks)), console=console, auto_refresh=False) as live:
        live.refresh()
        live.refresh()

    assert "running" in raw.getvalue()
    assert "finished" in raw.getvalue()


def test_a_braille_plot_reaches_its_corners() -> None:
    lines = plot([(0, 0.0), (1, 1.0)], width=4, height=2)

    assert [len(line) for line in lines] == [4, 4]
    assert ord(lines[1][0]) - 0x2800 & 0x40, "the lowest left dot"
    assert ord(lines[0][3]) - 0x2800 & 0x08, "the highest right dot"
    assert plot([], 3, 1) == ["⠀⠀⠀"]
    assert plot([(5, 0.3)], 3, 1)[0].strip("⠀"), "a single point is drawn"
