"""The search tree drawn as a tree: an SVG written by hand, root at the left, a column for each generation.

Every leaf has a row of its own and a parent stands in the middle of its children, so that nothing can overlap: labels
run along the edge that leads to their node, between its parent's column and its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from llmzero_hpc.report import words
from llmzero_hpc.report.data import NodeReport
from llmzero_hpc.search.node import NodeStatus, TransitionKind

if TYPE_CHECKING:
    from llmzero_hpc.report.data import ReportData

RADIUS = 19.0
_COLUMN, _ROW = 236.0, 74.0
_LEFT, _TOP, _RIGHT, _BOTTOM = 44.0, 40.0, 44.0, 52.0
_BEND = RADIUS + 16
_LABEL_CHARACTERS = 20
_CHARACTER = 8.6  # of the 12.5 px label font, bold, taken generously
_STATUS_CLASS = {
    NodeStatus.COMPLETED: "done",
    NodeStatus.EARLY_STOPPED: "early",
    NodeStatus.FAILED: "failed",
    NodeStatus.CANCELLED: "cancelled",
}

_STYLE = """
.tree text{font:12.5px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--ink,#1c2128)}
.tree .id{font-weight:650;font-size:14px;text-anchor:middle;fill:#fff}
.tree .score{text-anchor:middle;font-size:13px;font-variant-numeric:tabular-nums}
.tree .quiet,.tree .label{fill:var(--muted,#57606a)}
.tree .on .score,.tree .on .label{font-weight:650;fill:var(--ink,#1c2128)}
.tree .edge{fill:none;stroke:var(--line,#b4bcc6);stroke-width:2}
.tree .edge.scratch{stroke-dasharray:2 5;stroke-linecap:round}
.tree .edge.debug{stroke-dasharray:9 5}
.tree .edge.best{stroke:var(--best,#007a5a);stroke-width:4;stroke-dasharray:none}
.tree .done{fill:var(--done,#0072b2)}
.tree .early{fill:var(--early,#b35900)}
.tree .failed{fill:var(--failed,#a8326e)}
.tree .cancelled{fill:var(--cancelled,#6e7781)}
.tree .active{fill:var(--card,#fff);stroke:var(--done,#0072b2);stroke-width:3;stroke-dasharray:6 4}
.tree .active+.id{fill:var(--ink,#1c2128)}
.tree .on .ring{fill:none;stroke:var(--best,#007a5a);stroke-width:3}
.tree .back{fill:var(--card,#fff)}
.tree .pruned .failed,.tree .pruned .done,.tree .pruned .early{opacity:.55}
""".strip().replace("\n", "")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """They share an area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a node stands, and the boxes of all that is drawn for it: shape, score, labels."""

    node: NodeReport
    x: float
    y: float
    upper: str
    """What is written above its edge: the leading change."""
    lower: str
    """What is written below its edge."""
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A placed tree and the size of its picture."""

    placed: Mapping[int, Placed]
    width: float
    height: float


def layout(data: ReportData) -> Layout:
    """Place every node; deterministic, and linear in the number of nodes."""
    by_parent: dict[int | None, list[NodeReport]] = {}
    for node in data.nodes:
        by_parent.setdefault(node.parent, []).append(node)
    rows: dict[int, float] = {}
    depths: dict[int, int] = {}
    leaves = 0
    stack = [(node, 0, False) for node in reversed(by_parent.get(None, []))]
    while stack:
        node, depth, is_back = stack.pop()
        children = by_parent.get(node.id, [])
        if is_back:
            rows[node.id] = (rows[children[0].id] + rows[children[-1].id]) / 2
            continue
        depths[node.id] = depth
        if not children:
            rows[node.id] = leaves
            leaves += 1
            continue
        stack.append((node, depth, True))
        stack.extend((child, depth + 1, False) for child in reversed(children))
    placed = {
        node.id: _place(node, _LEFT + depths[node.id] * _COLUMN, _TOP + rows[node.id] * _ROW)
        for node in data.nodes
        if node.id in rows
    }
    columns = 1 + max(depths.values(), default=0)
    return Layout(placed, _LEFT + (columns - 1) * _COLUMN + _RIGHT, _TOP + max(0, leaves - 1) * _ROW + _BOTTOM)


def _place(node: NodeReport, x: float, y: float) -> Placed:
    upper, lower = edge_labels(node)
    reach = RADIUS + 4
    boxes = [Box(x - reach, y - reach, x + reach, y + reach), Box(x - 34, y + reach, x + 34, y + reach + 15)]
    start = x - _COLUMN + _BEND + 6
    if upper:
        boxes.append(Box(start, y - 18, start + len(upper) * _CHARACTER, y - 2))
    if lower:
        boxes.append(Box(start, y + 2, start + len(lower) * _CHARACTER, y + 18))
    return Placed(node, x, y, upper, lower, tuple(boxes))


def edge_labels(node: NodeReport) -> tuple[str, str]:
    """What stands above and below the edge to a node: how it came about and the leading changes."""
    if node.parent is None:
        return "", ""
    changes = [words.change(item.name, item.before, item.after, "→") for item in node.changes]
    if node.kind is TransitionKind.SCRATCH:
        changes.insert(0, "from scratch")
    elif node.kind is TransitionKind.DEBUG:
        changes.insert(0, f"repairs {node.repairs}")
    if not changes:
        return "same again" if node.configuration else "", ""
    more = len(changes) - 2
    lower = changes[1] if len(changes) > 1 else ""
    if more > 0:
        room = _LABEL_CHARACTERS - len(f" +{more}")
        lower = f"{words.clipped(lower, room)} +{more}"
    return words.clipped(changes[0], _LABEL_CHARACTERS), lower if more > 0 else words.clipped(lower, _LABEL_CHARACTERS)


def render_tree(data: ReportData) -> str:
    """The whole SVG. Inside a page it takes the page's colours (CSS variables), alone its own."""
    plan = layout(data)
    width, height = round(plan.width), round(plan.height)
    best_edges = {
        node.node.id
        for node in plan.placed.values()
        if node.node.on_best_path and node.node.parent == node.node.resume_node and node.node.parent is not None
    }
    parts = [
        f'<svg class="tree" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"',
        f' height="{height}" role="img" aria-labelledby="tree-title tree-text">',
        f'<title id="tree-title">Search tree of {escape(data.name)}: {len(data.nodes)} phases</title>',
        f'<desc id="tree-text">{escape(_description(data))}</desc>',
        f"<style>{_STYLE}</style>",
    ]
    edges = sorted(plan.placed.values(), key=lambda item: item.node.id in best_edges)
    parts += [_edge(item, plan.placed, best=item.node.id in best_edges) for item in edges]
    best = data.best.node if data.best else None
    parts += [_node(item, is_best=item.node.id == best) for item in plan.placed.values()]
    return "\n".join([*(part for part in parts if part), "</svg>"])


def _description(data: ReportData) -> str:
    lines = []
    for node in data.nodes:
        origin = "the root" if node.parent is None else f"child of {node.parent}"
        outcome = words.STATUS_WORDS[node.status] + (
            f" with score {words.score(node.score)}" if node.score is not None else ""
        )
        lines.append(f"Phase {node.id}, {node.kind.value}, {origin}: {outcome}.")
    path = [str(phase.node) for phase in data.strategy]
    return " ".join([*lines, f"Best strategy: {' then '.join(path)}." if path else "No score yet."])


def _edge(item: Placed, placed: Mapping[int, Placed], *, best: bool) -> str:
    node = item.node
    if node.parent is None or node.parent not in placed:
        return ""
    parent = placed[node.parent]
    bend, radius = parent.x + _BEND, 12.0
    path = f"M{parent.x:g} {parent.y:g}H{bend:g}V{item.y:g}H{item.x:g}"
    if abs(item.y - parent.y) >= 2 * radius:
        sign = 1 if item.y > parent.y else -1
        path = (
            f"M{parent.x:g} {parent.y:g}H{bend - radius:g}q{radius:g} 0 {radius:g} {sign * radius:g}"
            f"V{item.y - sign * radius:g}q0 {sign * radius:g} {radius:g} {sign * radius:g}H{item.x:g}"
        )
    marks = f"edge {node.kind.value}{' best' if best else ''}"
    return f'<path class="{marks}" d="{path}"/>'


def _shape(node: NodeReport, x: float, y: float) -> str:
    kind = _STATUS_CLASS.get(node.status, "active")
    r = RADIUS
    if kind == "early":
        side = 2 * (r - 2.5)
        return (
            f'<rect class="early" x="{x - r + 2.5:g}" y="{y - r + 2.5:g}" width="{side:g}" height="{side:g}" rx="4"/>'
        )
    if kind == "failed":
        d = r + 2
        return f'<path class="failed" d="M{x:g} {y - d:g}L{x + d:g} {y:g}L{x:g} {y + d:g}L{x - d:g} {y:g}Z"/>'
    return f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{r - (5 if kind == "cancelled" else 2):g}"/>'


def _node(item: Placed, *, is_best: bool) -> str:
    node, x, y = item.node, item.x, item.y
    marks = ("on" if node.on_best_path else "") + (" pruned" if node.pruned else "")
    below = words.score(node.score) if node.score is not None else words.STATUS_WORDS[node.status]
    label_x = x - _COLUMN + _BEND + 6
    changes = "; ".join(words.change(change.name, change.before, change.after, "→") for change in node.changes)
    full = f"Phase {node.id}: {node.kind.value}, {words.STATUS_WORDS[node.status]}, score {words.score(node.score)}"
    parts = [f'<g class="{marks.strip()}">', f"<title>{escape(full + (f'. {changes}' if changes else ''))}</title>"]
    if node.pruned:
        parts.append(f'<circle class="back" cx="{x:g}" cy="{y:g}" r="{RADIUS:g}"/>')
    if node.on_best_path:
        parts.append(f'<circle class="ring" cx="{x:g}" cy="{y:g}" r="{RADIUS + 2.5:g}"/>')
    parts += [
        _shape(node, x, y),
        f'<text class="id" x="{x:g}" y="{y + 5:g}">{node.id}</text>',
        f'<text class="score{"" if node.score is not None else " quiet"}" x="{x:g}" y="{y + RADIUS + 17:g}">',
        f"{'★ ' if is_best else ''}{escape(below)}</text>",
    ]
    if item.upper:
        parts.append(f'<text class="label" x="{label_x:g}" y="{y - 7:g}">{escape(item.upper)}</text>')
    if item.lower:
        parts.append(f'<text class="label" x="{label_x:g}" y="{y + 16:g}">{escape(item.lower)}</text>')
    return "".join([*parts, "</g>"])
