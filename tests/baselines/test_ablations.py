"""Ablations as variants of one search: what each leaves out, and the figures of their table against hand arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rehearsed_world import Rehearsed

from llmzero_hpc.controller.comparison import comparison, existing, members, read_plan
from llmzero_hpc.report.comparison_markdown import page
from llmzero_hpc.report.comparison_views import sentences
from llmzero_hpc.search.node import TransitionKind

if TYPE_CHECKING:
    from llmzero_hpc.analysis.comparison import Comparison, Pair
    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.tree import Tree

pytestmark = pytest.mark.slow

SEARCH: dict[str, Any] = {
    "name": "base",
    "trainer": "rehearsal",
    "model": "none",
    "task": {"name": "chains"},
    "configuration": {
        "batch_size": 8, "mini_batches": 1, "epochs": 4.0, "lora_rank": 8, "lora_alpha": 16,
        "max_response_length": 48, "learning_rate": 1e-3,
    },
    "bounds": {"max_response_length": {"high": 64}},
    "validate_every_steps": 4,
    "early_stop": {"interval_seconds": 0, "first_step": 4},
    "rehearsal": {"step_seconds": 0, "failure_rate": 0, "train_rows": 64},
}  # fmt: skip
VARIANTS: dict[str, Any] = {
    "no-stages": {"rules": {"single_stage": True}},
    "no-stop": {"early_stop": {"enabled": False}},
    "no-injection": {"rules": {"min_scratch_ratio": 0}},
    "two-slots": {"max_parallel_phases": 2},
}
SEEDS = (0, 2)
Trees = dict[tuple[str, int], "Tree"]


def steps(node: Node) -> float:
    """A model of the cost: a second for each step until the end, or until the stop."""
    last = node.stop.step if node.stop else node.first_step + (node.total_steps or 0) - 1
    return float(last - node.first_step + 1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trees, Comparison, str]:
    """Every variant on two seeds, eight phases each."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "search.yaml").write_text(yaml.safe_dump(SEARCH), encoding="utf-8")
    plan = {
        "name": "ablations",
        "search": "search.yaml",
        "methods": {"full": "llmzero", "chain": {"kind": "llmzero", "tree": False}}
        | dict.fromkeys(VARIANTS, "llmzero"),
        "changes": VARIANTS,
        "seeds": list(SEEDS),
        "budget": {"iterations": 8},
    }
    (folder / "compare.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    found = members(read_plan(folder / "compare.yaml"))
    trees = {(one.method, one.config.seed): Rehearsed(folder / one.config.name, one.config).search() for one in found}
    searches = existing(found, folder)
    result = comparison(searches, "full", steps)
    changes = {one.method: one.changes for one, _ in searches}
    text = page(result, name="ablations", unit="CPU-hours", simulated=True, changes=changes, picture="")
    return trees, result, text


def all_of(trees: Trees, label: str) -> list[Node]:
    return [node for seed in SEEDS for node in trees[label, seed]]


def pair(result: Comparison, label: str) -> Pair:
    return next(one for one in result.pairs if one.other == label)


def test_what_each_leaves_out(compared: tuple[Trees, Comparison, str]) -> None:
    trees, _, _ = compared
    assert [node for node in all_of(trees, "full") if node.stop], "otherwise this shows nothing"
    assert not [node for node in all_of(trees, "no-stop") if node.stop]
    assert not [node for node in all_of(trees, "no-stages") if node.resume]
    for label in ("chain", "no-injection"):
        assert not [node for node in all_of(trees, label) if node.id and node.kind is TransitionKind.SCRATCH]
    assert [node for node in all_of(trees, "full") if node.id and node.kind is TransitionKind.SCRATCH]


def test_a_chain_continues_the_best(compared: tuple[Trees, Comparison, str]) -> None:
    trees, _, _ = compared
    for seed in SEEDS:
        tree = trees["chain", seed]
        for node in tree.nodes[1:]:
            before = [one for one in tree.nodes[: node.id] if one.score is not None]
            assert node.resume is not None
            assert node.resume.node == max(before, key=lambda one: (one.score or 0.0, -one.id)).id


def test_compute_and_speed_by_hand(compared: tuple[Trees, Comparison, str]) -> None:
    """Speed: steps of the full search over those of the variant, until both have the lower of their best scores."""
    trees, result, text = compared

    def until(tree: Tree, score: float) -> float:
        spent = 0.0
        for node in tree:
            for point in node.checkpoints:
                if point.score >= score:
                    share = (point.step - node.first_step + 1) / (
                        max(node.last_step or 0, point.step) - node.first_step + 1
                    )
                    return spent + share * steps(node)
            spent += steps(node)
        raise AssertionError

    for label in ("no-stop", "no-stages", "chain"):
        own = sum(map(steps, all_of(trees, label)))
        full = sum(map(steps, all_of(trees, "full")))
        found = pair(result, label)
        assert found.compute is not None
        assert found.compute.value == pytest.approx(own / full)
        reached = []
        for seed in SEEDS:
            one, two = trees["full", seed], trees[label, seed]
            target = min(max(node.score or 0.0 for node in tree) for tree in (one, two))
            reached.append((until(one, target), until(two, target)))
        assert found.speed is not None
        assert found.speed.value == pytest.approx(sum(one for one, _ in reached) / sum(two for _, two in reached))
        assert found.speed.low <= found.speed.value <= found.speed.high
        assert f"{found.compute.value:.2f}x" in text
    stopping = pair(result, "no-stop").compute
    assert stopping is not None
    assert stopping.value > 1, "without early stopping the same phases cost more"


def test_phases_in_flight_by_hand(compared: tuple[Trees, Comparison, str]) -> None:
    """On one place a search lasts as long as it costs; on two, phases overlap where none waits for another."""
    trees, result, _ = compared
    walls = {(run.method, run.seed): run.wall for run in result.runs}
    for seed in SEEDS:
        assert walls["full", seed] == sum(map(steps, trees["full", seed]))
        two = trees["two-slots", seed]
        ends: list[float] = []
        begun = 0.0
        for node in two:
            free = sorted([0.0, 0.0, *ends])[-2]  # of two places the one that is free first
            begun = max(begun, free, ends[node.resume.node] if node.resume else 0.0)
            ends.append(begun + steps(node))
        assert walls["two-slots", seed] == max(ends)
        assert max(ends) < sum(map(steps, two))
    found = pair(result, "two-slots").wall
    assert found is not None
    assert found.value == pytest.approx(
        sum(walls["full", seed] for seed in SEEDS) / sum(walls["two-slots", seed] for seed in SEEDS)
    )


def test_the_page(compared: tuple[Trees, Comparison, str]) -> None:
    _, result, text = compared
    rows = {
        cells[1]: cells
        for line in text.partition("## Against full")[2].splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")]) > 2
    }
    assert rows["full"][2:8] == ["", rows["full"][3], "1x", "1x", "", "1x"]
    speed = pair(result, "no-stop").speed
    assert speed is not None
    assert f"full spent {speed.value:.2f}x of what no-stop spent until both had" in "\n".join(sentences(result))
    assert rows["no-stop"][6] == f"{1 - speed.value:.0%}", "what early stopping saves"
    assert rows["no-stop"][2] == "early_stop.enabled: false"
    assert rows["two-slots"][2] == "max_parallel_phases: 2"
    assert rows["chain"][2] == "tree: false"
    assert "## full minus the others" in text
    assert "SIMULATED" in text
    assert text.count(" | test | ") == 2 + len(result.pairs), "two heads, and a difference for each variant"
    assert "Language models" not in text, "none was asked"
    assert "never" not in text, "no method is static, so there is nothing to reach"
