"""Each benchmark runs, on sizes that take no time; no figure is judged here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import agent_tokens
import growth
import page
import pytest
import slurm_cost
import status_cost
import verl_cost
import views_cost
from login_cost import LoginCost
from measuring import Footprint, Run, machine, part_in, with_part
from samples import search_of, tree_of

from llmzero_hpc.search.node import NodeStatus, TransitionKind
from llmzero_hpc.search.rules import Rules
from llmzero_hpc.search.selection import Expansion, select

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [1, 20, 300])
def test_sample_trees_are_valid_and_like_real_ones(size: int, tmp_path: Path) -> None:
    tree = tree_of(size)
    search_of(tmp_path / "bench", tree)  # refuses a tree that could not be read back
    assert len(tree) == size
    assert tree == tree_of(size)
    decision = select(tree, Rules())
    assert isinstance(decision, Expansion)
    # or selection would be measured without its descent
    assert decision.kind is TransitionKind.EVOLVE
    if size == 300:
        assert {node.status for node in tree} == {
            NodeStatus.COMPLETED,
            NodeStatus.EARLY_STOPPED,
            NodeStatus.FAILED,
        }
        assert {node.kind for node in tree} == set(TransitionKind)
        assert max(node.first_step for node in tree) > 500


def test_growth_of_a_small_tree() -> None:
    (cost,) = growth.measured((10,))
    assert cost.nodes == 10
    assert cost.bytes > 1000
    assert cost.peak_memory > 1e6


def test_status_is_compared_with_bare_processes() -> None:
    (cost,) = status_cost.measured((10,), 1)
    assert cost.python.cpu < cost.status.cpu
    imports = status_cost.import_times(1)
    assert {"llmzero_hpc", "pydantic", "the standard library"} <= {item.package for item in imports}


def test_the_page_shows_every_figure() -> None:
    grown = growth.Growth(10, 1e-4, 1e-3, 1e-4, 18_785, 36_000_000, "")
    short, long, light = Run(0.01, 0.02), Run(0.2, 0.3), Footprint(40_000_000, ("pydantic",))
    looked = status_cost.StatusCost(10, short, short, long, long, light, light)
    controller = LoginCost(8, 16, 40, 0.01, 1.0, 8.0, 5e5, 0.2, 40_000_000, 100, ("pydantic",))
    judged = LoginCost(8, 16, 40, 0.03, 1.0, 8.0, 5e5, 0.2, 81_000_000, 100, ("pydantic", "torch"))
    text = page.written(
        page.Figures(
            calm=(controller,),
            judged=(judged,),
            growth=(grown,),
            status=(looked,),
            imports=(status_cost.ImportTime("pydantic", 0.02),),
            views=views_cost.ViewsCost(16, long, long, short),
            slurm=(slurm_cost.Watch(200, 40, 0.02, 0.01, 1.0, 0.0, 50_000_000),),
            gaps=(slurm_cost.Gaps(30.0, (4.0, 12.0, 29.0)),),
            machine=tuple(machine()),
        )
    )
    # 120 ticks of 0.01 s, and 4 times 8 judgements of 0.0025 s
    assert "| **CPU seconds an hour** | **1.3** |" in text
    assert "| **cluster calls an hour** | **120** |" in text
    assert "| squeue calls an hour | 120 |" in text
    assert "12 s with a tick every 30 s (from 4 to 29 s, 3 phases)" in " ".join(text.split())
    assert "80 MB: **not met**" in text
    assert "| 81 MB | torch |" in text
    assert "18,785 (1)" in text


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.skipif(not slurm_cost.is_possible(), reason="no Slurm can be started here")
def test_jobs_of_a_real_slurm_are_watched(tmp_path: Path) -> None:
    cost = slurm_cost.watched(2, 2, 0.1)
    assert (cost.squeue, cost.sacct) == (1.0, 0.0)
    assert cost.own_cpu > 0
    assert cost.commands_cpu > 0
    assert len(slurm_cost.gaps(2, 0.2).seconds) == 2  # a second phase, and the test score


@pytest.mark.slow
def test_views_of_one_phase() -> None:
    cost = views_cost.measured(1)
    assert cost.nothing_changed.cpu < cost.all_at_once.cpu


def test_the_section_on_tokens_is_put_in_its_place_once() -> None:
    asked = {"proposer": [agent_tokens.Asked(5000, 4, 4000)], "early_stopper": [agent_tokens.Asked(2000, 2, 1000)] * 2}
    part = agent_tokens.section(asked, 16, 300)
    # 3,000 tokens in and 400 out, 2,777 times
    assert "| 2,777 | 3,000 | 400 | $41.7 |" in part
    page = "# A page\n\n## What was there\n\nAnd so on.\n"
    once = with_part(page, part)
    assert once.startswith(page)
    assert "| proposal | 1 | 5,000 |" in once
    assert with_part(once, part) == once
    followed = once + "\n## And more\n"
    assert with_part(followed, part) == followed


def test_what_verl_costs_stays_on_the_page_where_it_is_not_measured() -> None:
    start = verl_cost.Start("vLLM", 40.0, 70.0, 0.5, 3_200_000_000, 21)
    part = verl_cost.section((start,), 4_200_000_000)
    assert "| vLLM | 40 | 70 | 0.5 | 3.2 GB | 21 |" in part
    assert "4.2 GB" in part
    whole = with_part("# A page\n\nIts text.\n", part)
    assert part_in(whole, verl_cost.SCRIPT) == part
    assert not part_in("# A page\n", verl_cost.SCRIPT)
