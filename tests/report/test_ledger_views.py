"""What a search costs, what is left, what the cluster says: in the terminal and for scripts."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import report_samples as samples
from rich.console import Console

from llmzero_hpc.report.collect import Pulse, collect
from llmzero_hpc.report.data import ReportData, to_json
from llmzero_hpc.report.html import render
from llmzero_hpc.report.terminal import status_view
from llmzero_hpc.report.terminal_phase import show_view
from llmzero_hpc.search.node import Ending
from llmzero_hpc.sections import Budget, LocalClusterConfig, SlurmClusterConfig

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmzero_hpc.search.tree import Tree

CALLS = {"squeue": 8, "sacct": 2, "sbatch": 3}
WAITING = "node 3 running, node 4 pending (Resources)"


def shown(content: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=False).print(content)
    return stream.getvalue()


def look(tree: Tree, *, local: bool = False, dollars: float = 0.0, **values: object) -> ReportData:
    cluster = LocalClusterConfig() if local else SlurmClusterConfig(kind="slurm")
    return collect(
        tree,
        samples.config(cluster=cluster, **values),
        created_at=samples.CREATED_AT,
        train_rows=4096,
        program_version="0.1.0",
        now=samples.NOW,
        series={},
        pulse=Pulse("login1", 4242, samples.NOW - 3, waiting_for=WAITING, calls=CALLS, api_dollars=dollars),
    )


def accounted(tree: Tree, *ids: int) -> Tree:
    changed = [
        replace(node, attempts=tuple(replace(attempt, accounted=True) for attempt in node.attempts))
        for node in tree
        if node.id in ids
    ]
    return tree.replacing(*changed)


def test_what_the_cluster_has_not_accounted_for_is_called_an_estimate() -> None:
    tree = accounted(samples.running_tree(), 0, 1, 2)
    compute = look(tree).budget[1]

    assert compute.used == pytest.approx((48 + 48 + 9 + 20) / 3600)
    assert compute.estimated == pytest.approx(20 / 3600), "of phase 3, which runs"
    assert look(tree, local=True).budget[1].estimated == 0.0, "nobody else keeps accounts there"
    assert "not in the cluster's accounts yet" in shown(status_view(look(tree)))
    assert "accounts" not in shown(status_view(look(tree, local=True)))
    assert "not in the cluster's accounts yet" in render(look(tree))


def test_what_phases_in_flight_may_still_spend_is_shown_beside_what_is_left() -> None:
    tree = samples.running_tree()
    running = tree[3]
    capped = replace(running, attempts=(replace(running.attempts[0], allowance=200.0),))
    compute = look(tree.replacing(capped)).budget[1]

    assert compute.reserved == pytest.approx((180 + 60) / 3600), "the rest of an allowance, and a minute at least"
    assert f"{240 / 3600:.3f} of what is left is reserved" in shown(status_view(look(tree.replacing(capped))))
    assert "reserved" not in shown(status_view(look(samples.finished_tree())))
    assert "reserved" not in shown(status_view(look(tree, budget=Budget())))


def test_money_has_a_line_when_it_is_limited_or_spent() -> None:
    tree = samples.running_tree()

    assert "money" not in {line.name for line in look(tree).budget}
    limited = look(tree, dollars=1.25, budget=Budget(api_dollars=5.0))
    assert [(line.used, line.limit, line.left) for line in limited.budget if line.name == "money"] == [
        (1.25, 5.0, 3.75)
    ]
    assert "1.25 of 5.00, 3.75 left" in shown(status_view(limited))
    assert "1.25 used, no limit" in shown(status_view(look(tree, dollars=1.25)))


def test_the_cluster_s_own_word_on_a_waiting_phase_and_the_calls_made_are_shown() -> None:
    text = " ".join(shown(status_view(look(samples.running_tree()))).split())

    assert "cluster 13 calls (sacct 2, sbatch 3, squeue 8); node 3 running, node 4 pending (Resources)" in text
    assert "pending" not in shown(status_view(look(samples.finished_tree())))


def test_scripts_read_the_same() -> None:
    plain = to_json(look(accounted(samples.running_tree(), 0)))

    assert plain["controller"]["calls"] == CALLS
    assert plain["controller"]["cluster_calls"] == 13
    assert plain["controller"]["waiting_for"] == WAITING
    assert plain["budget"][1]["estimated"] == pytest.approx(77 / 3600)
    first, second = (plain["nodes"][number]["attempts"][0] for number in (0, 1))
    assert (first["accounted"], second["accounted"]) == (True, False)
    assert {"restarts", "hosts", "submitted_at", "started_at", "ended_at"} <= set(first)


def test_a_phase_shows_where_and_how_often_it_ran_and_how_each_attempt_ended() -> None:
    node = samples.finished_tree()[5]
    lost = replace(
        node.attempts[0], ending=Ending.NODE_FAILURE, exit_code=None, restarts=2, hosts="gpu[3-4]", accounted=True
    )
    again = replace(node.attempts[0], number=2, hosts="gpu[5-6]", restarts=1)
    never = replace(node.attempts[0], number=3, job=None, started_at=None, ended_at=None, ending=None, exit_code=None)
    tree = samples.finished_tree().replacing(replace(node, attempts=(lost, again, replace(never, device_seconds=0.0))))
    text = " ".join(shown(show_view(samples.data(tree), 5)).split())

    assert (
        "1 job 4005 on gpu[3-4]: node failure, restarted 2 times, ran for 48 s; 48 s of device time"
        " (as the cluster accounts for it)" in text
    )
    assert "2 job 4005 on gpu[5-6]: completed, exit code 0, restarted once, ran for 48 s; 48 s of device time 3" in text
    assert "3 no job: not over; 0 s of device time" in text


def test_host_names_carry_no_markup_or_control_characters() -> None:
    node = samples.finished_tree()[5]
    evil = replace(node, attempts=(replace(node.attempts[0], hosts="[red]\x1b[2Jnode"),))
    text = shown(show_view(samples.data(samples.finished_tree().replacing(evil)), 5))

    assert "[red] [2Jnode" in text
