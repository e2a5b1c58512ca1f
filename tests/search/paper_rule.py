"""The paper's rule for one phase at a time, written a second time: recursive, slow, and straight from the text.

It shares nothing with the product but the record of a node. Section 3.2 (pruning, terminality), section 3.3
(from-scratch injection), appendix D.2 (equations 5 to 8) and D.3 (virtual new child), constants from appendix B.6.
Single-stage (table 2): what would evolve starts from scratch instead, in the same place, and nothing is injected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmzero_hpc.search.node import Node
from llmzero_hpc.search.rules import Rules


@dataclass
class PaperRule:
    nodes: Sequence[Node]
    rules: Rules
    scratch_counts_in_k: bool = False

    def next(self) -> tuple[str, int] | None:
        """(kind, parent), or None when nothing is left."""
        n_scratch = len([x for x in self.nodes if x.kind == "scratch"])
        if n_scratch / len(self.nodes) < self.rules.min_scratch_ratio and not self.rules.single_stage:
            best = None
            for x in self.nodes:
                if self.evolves(x) and (best is None or self.s(x) > self.s(best)):
                    best = x
            if best is not None:
                return "scratch", best.id
        for x in self.nodes:
            if x.parent is None and not self.terminal(x):
                return self.descend(x)
        return None

    def descend(self, p: Node) -> tuple[str, int]:
        cs = [c for c in self.children(p) if not self.terminal(c)]
        best = None
        for c in cs:
            if best is None or self.uct(p, c) > self.uct(p, best):
                best = c
        if self.can_expand(p) and (best is None or self.uct_new(p) > self.uct(p, best)):
            return ("debug" if p.status == "failed" else "scratch" if self.rules.single_stage else "evolve"), p.id
        return self.descend(best)

    def children(self, p: Node) -> list[Node]:
        return [c for c in self.nodes if c.parent == p.id]

    def subtree(self, x: Node) -> list[Node]:
        return [x] + [y for c in self.children(x) for y in self.subtree(c)]

    def s(self, x: Node) -> float | None:
        return max((point.score for point in x.checkpoints), default=None)

    def evolves(self, x: Node) -> bool:
        """Final, scored, no failure, not pruned, and no cancelled repair that hangs under its failure."""
        stuck = x.kind == "debug" and x.parent == x.repairs
        return x.status in ("completed", "early_stopped", "cancelled") and self.s(x) is not None and not (
            x.pruned or stuck
        )  # fmt: skip

    def chain(self, x: Node) -> list[Node]:
        """The repairs in a row that led to x, and the failure they began with."""
        return [x] if x.repairs is None else [x, *self.chain(self.nodes[x.repairs])]

    def k(self, p: Node) -> int:
        """Children that take a place: not the injected ones, nor what stands for one."""
        count = 0
        for c in self.children(p):
            gone = c.pruned or (c.status == "cancelled" and self.s(c) is None)
            repair_at_work = c.kind == "debug" and c.repairs == p.id
            injected = not repair_at_work and self.chain(c)[-1].kind == "scratch" and not self.rules.single_stage
            count += not gone and not injected
        return count

    def can_expand(self, p: Node) -> bool:
        if p.status == "failed":
            depth = len(self.chain(p)) - 1
            return not p.pruned and self.k(p) < self.rules.max_debug_children and depth < self.rules.max_debug_depth
        return self.evolves(p) and self.k(p) < self.rules.max_evolve_children

    def terminal(self, x: Node) -> bool:
        return not self.can_expand(x) and all(self.terminal(c) for c in self.children(x))

    def visits(self, x: Node) -> list[Node]:
        return [y for y in self.subtree(x) if not (y.status == "cancelled" and self.s(y) is None)]

    def f(self, s: float) -> float:
        scores = [self.s(x) for x in self.nodes if self.s(x) is not None]
        hat = 1.0 if max(scores) == min(scores) else (s - min(scores)) / (max(scores) - min(scores))
        t = self.rules.shaping_temperature
        return (math.exp(hat / t) - 1) / (math.exp(1 / t) - 1)

    def q(self, c: Node) -> float:
        runs = self.visits(c)
        val = [self.s(x) for x in runs if self.s(x) is not None]
        fail = len([x for x in runs if x.status == "failed"])
        early = len([x for x in runs if x.status == "early_stopped"])
        worth = len(val) / len(runs) * self.f(sum(val) / len(val)) if val else 0.0
        penalty = self.rules.failure_weight * max(0, fail - self.rules.forgiven_failures) / len(runs)
        return worth - penalty - self.rules.early_stop_weight * early / len(runs)

    def uct(self, p: Node, c: Node) -> float:
        return self.q(c) + self.rules.exploration * math.sqrt(math.log(len(self.visits(p))) / len(self.visits(c)))

    def uct_new(self, p: Node) -> float:
        k = len(self.children(p)) if self.scratch_counts_in_k else self.k(p)
        n_fair = len(self.visits(p)) / (k + 1)
        prior = 0.0 if self.s(p) is None else self.f(self.s(p))
        return prior + self.rules.exploration * math.sqrt(math.log(len(self.visits(p))) / n_fair)
