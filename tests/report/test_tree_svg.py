"""The drawn tree: nothing overlaps, everything is inside, and it is well-formed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import report_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st

from llmzero_hpc.report.tree_svg import layout, render_tree
from llmzero_hpc.search.node import Node, TransitionKind
from llmzero_hpc.search.tree import Tree

if TYPE_CHECKING:
    from llmzero_hpc.report.data import ReportData

NAMESPACE = "{http://www.w3.org/2000/svg}"


@st.composite
def trees(draw: st.DrawFn) -> ReportData:
    """Any shape of up to 60 nodes, with labels as long as they come."""
    size = draw(st.integers(1, 60))
    some = samples.finished_tree().nodes
    wordy = replace(
        some[1],
        configuration=some[0].configuration.changed(  # type: ignore[union-attr]
            overrides={"actor_rollout_ref.actor.a_very_long_name_of_a_key": "w" * 60, "another": 0.123456}
        ),
    )
    nodes: list[Node] = [some[0]]
    for number in range(1, size):
        model = draw(st.sampled_from([*some[1:], wordy]))
        parent = draw(st.integers(0, number - 1))
        repairs = parent if model.kind is TransitionKind.DEBUG else None
        nodes.append(replace(model, id=number, parent=parent, repairs=repairs, resume=None))
    return samples.data(Tree(tuple(nodes)))


@settings(deadline=None, max_examples=60)
@given(data=trees())
def test_no_two_nodes_or_labels_overlap_and_nothing_is_cut_off(data: ReportData) -> None:
    plan = layout(data)

    assert set(plan.placed) == {node.id for node in data.nodes}
    boxes = [(number, box) for number, item in plan.placed.items() for box in item.boxes]
    for (one, first), (other, second) in combinations(boxes, 2):
        assert not first.overlaps(second), f"{one} and {other}"
    for _, box in boxes:
        assert box.left >= 0
        assert box.top >= 0
        assert box.right <= plan.width
        assert box.bottom <= plan.height


@settings(deadline=None, max_examples=20)
@given(data=trees())
def test_any_tree_is_well_formed_and_shows_each_node_once(data: ReportData) -> None:
    root = ET.fromstring(render_tree(data))  # noqa: S314 - we wrote it
    ids = [item.text for item in root.iter(f"{NAMESPACE}text") if item.get("class") == "id"]

    assert sorted(ids, key=lambda text: int(text or "-1")) == [str(node.id) for node in data.nodes]


def test_status_has_a_shape_of_its_own_and_words_for_screen_readers() -> None:
    svg = render_tree(samples.finished())
    root = ET.fromstring(svg)  # noqa: S314 - we wrote it

    shapes = {
        item.get("class"): item.tag.removeprefix(NAMESPACE)
        for item in root.iter()
        if item.get("class") in {"done", "early", "failed"}
    }
    assert shapes == {"done": "circle", "early": "rect", "failed": "path"}
    description = root.find(f"{NAMESPACE}desc")
    assert description is not None
    assert "Phase 3, evolve, child of 1: stopped early with score 0.700." in (description.text or "")
    assert "Best strategy: 0 then 1 then 5." in (description.text or "")


def test_the_best_strategy_is_highlighted_along_its_edges() -> None:
    svg = render_tree(samples.finished())

    assert len(re.findall(r'class="edge evolve best"', svg)) == 2, "0 to 1 and 1 to 5"
    assert svg.count('class="ring"') == 3


def test_the_label_of_an_edge_is_its_leading_change() -> None:
    plan = layout(samples.finished())

    assert (plan.placed[3].upper, plan.placed[3].lower) == ("rollouts 8→16", "")
    assert (plan.placed[1].upper, plan.placed[1].lower) == ("response 20→64", "lr 1e-3→5e-4 +2")
    assert plan.placed[4].upper == "repairs 2"
    assert plan.placed[6].upper == "from scratch"


def test_the_picture_is_the_same_for_the_same_tree() -> None:
    assert render_tree(samples.finished()) == render_tree(samples.finished())
