"""What the agents are asked about a tree, and what is made of their answers: pure."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.agents.base import FailureRequest, Proposal, ProposalRequest, Repair, Sibling, StopRequest
from llmzero_hpc.search.node import CheckpointReference, Node, NodeStatus, Rationale, TransitionKind
from llmzero_hpc.search.strategy import StrategyPhase, concatenated, path
from llmzero_hpc.search.strategy_cost import strategy_cost

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.search.metrics import Series
    from llmzero_hpc.search.selection import Expansion
    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.marker import Marker

_HOUR = 3600.0


def seed_of(search_seed: int, node_id: int) -> int:
    """The training seed of a node: fixed by the search's seed and the node's id, so that a rerun repeats."""
    digest = hashlib.sha256(f"{search_seed}/{node_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2**31


def planned_node(tree: Tree, expansion: Expansion, config: SearchConfig, now: float) -> Node:
    """The next node, before an agent has been asked for its configuration."""
    return Node(
        id=len(tree),
        kind=expansion.kind,
        parent=expansion.parent,
        seed=seed_of(config.seed, len(tree)),
        created_at=now,
        repairs=expansion.repairs,
    )


def root_node(config: SearchConfig, train_rows: int, now: float, first: Proposal) -> Node:
    """Node 0: from scratch, with what the search's method begins with."""
    return Node(
        id=0,
        kind=TransitionKind.SCRATCH,
        parent=None,
        seed=seed_of(config.seed, 0),
        created_at=now,
        status=NodeStatus.PROPOSED,
        configuration=first.configuration,
        total_steps=first.configuration.steps(train_rows),
        rationale=first.rationale,
    )


class Questions:
    """Builds requests from a tree. `series_of` gives the counted rows of a node's own phase."""

    def __init__(self, config: SearchConfig, train_rows: int, series_of: Callable[[Node], Series]) -> None:
        self._config = config
        self._train_rows = train_rows
        self._series_of = series_of

    def proposal(self, tree: Tree, node: Node, iterations_left: int, log_tail: str = "") -> ProposalRequest:
        """What the proposer is asked for a planned node of kind scratch or evolve.

        `log_tail` is of the newest phase that ended; it goes with the history, where the proposer gets that.
        """
        parent = self._parent(tree, node)
        scratch = node.kind is TransitionKind.SCRATCH
        others = (n for n in tree if n.kind is TransitionKind.SCRATCH) if scratch else iter(tree.children(parent.id))
        best = tree.best()
        return ProposalRequest(
            kind=node.kind,
            parent=parent,
            series=self._series_of(parent),
            strategy=self._trajectory(tree, parent),
            checkpoints=() if scratch else parent.checkpoints,
            siblings=tuple(
                Sibling(other, _gain(other, parent)) for other in others if other.id != node.id and other.configuration
            ),
            best_score=best.score if best else None,
            bounds=self._config.bounds,
            train_rows=self._train_rows,
            validate_every_steps=self._config.validate_every_steps,
            iterations_left=iterations_left,
            seed=node.seed,
            phases=path(tree, parent.id),
            child=node.id,
            history=self._history(tree),
            log_tail=log_tail if self._config.growth.leaves_choice else "",
            device_hours_left=self._hours_left(tree),
            strategy_hours_left=self._strategy_hours_left(tree, None if scratch else parent),
        )

    def stop(self, tree: Tree, node: Node, step: int) -> StopRequest | None:
        """What the early stopper is asked about a phase at `step`; None while there is nothing to compare with."""
        best = max(tree.scored(), key=lambda n: (n.score or 0.0, -n.id), default=None)
        if best is None or best.best is None or best.score is None or node.total_steps is None:
            return None
        own = self._series_of(node).up_to(step)
        before = () if node.resume is None else path(tree, node.resume.node, node.resume.step)
        phases = [(phase, self._series_of(phase.node)) for phase in before]
        phases.append((StrategyPhase(node, node.first_step, step), own))
        return StopRequest(
            node=node,
            series=own,
            strategy=concatenated(phases),
            best=self._trajectory(tree, best, best.best.step),
            best_score=best.score,
            last_step=node.first_step + node.total_steps - 1,
            rivals=tuple(other for other in tree if other.id != node.id and other.checkpoints),
        )

    def failure(self, tree: Tree, node: Node, log_tail: str, marker: Marker | None = None) -> FailureRequest:
        """What the error analyzer is asked for a planned debug node; `marker` is that of the failed attempt."""
        failed = self._parent(tree, node)
        if self._config.rules.single_stage:
            failed = replace(failed, checkpoints=())  # a repair is a whole run, too
        attempt = failed.attempt
        return FailureRequest(
            node=failed,
            exit_code=attempt.exit_code if attempt else None,
            log_tail=log_tail,
            series=self._series_of(failed),
            earlier=tuple(n for n in tree if n.repairs == failed.id and n.id != node.id and n.configuration),
            bounds=self._config.bounds,
            resumed=None if failed.resume is None else tree[failed.resume.node],
            ending=attempt.ending if attempt else None,
            marker=marker,
            train_rows=self._train_rows,
            child=node.id,
        )

    def _history(self, tree: Tree) -> tuple[tuple[Node, Series], ...]:
        if not self._config.growth.leaves_choice:
            return ()
        return tuple((node, self._series_of(node)) for node in tree if node.status.is_final and node.configuration)

    def _hours_left(self, tree: Tree) -> float | None:
        # Of what runs nothing is counted: it grows from tick to tick, and the same question must stay the same.
        limit = self._config.budget.device_hours
        used = math.fsum(node.device_seconds for node in tree if node.status.is_final) / _HOUR
        return None if limit is None else max(0.0, limit - used)

    def _strategy_hours_left(self, tree: Tree, parent: Node | None) -> float | None:
        limit = self._config.budget.strategy_device_hours
        if limit is None or parent is None or parent.last_step is None:
            return limit
        return max(0.0, limit - strategy_cost(tree, parent.id, parent.last_step) / _HOUR)

    def _trajectory(self, tree: Tree, node: Node, step: int | None = None) -> Series:
        return concatenated([(phase, self._series_of(phase.node)) for phase in path(tree, node.id, step)])

    @staticmethod
    def _parent(tree: Tree, node: Node) -> Node:
        source = node.repairs if node.kind is TransitionKind.DEBUG else node.parent
        if source is None:
            raise ValueError(f"node {node.id} has no parent to ask about")
        return tree[source]


def _gain(node: Node, parent: Node) -> float | None:
    if node.score is None or parent.score is None or not node.status.is_final:
        return None
    return node.score - parent.score


def fallback_proposal(request: ProposalRequest) -> Proposal:
    """What is done when no usable answer came: the parent's configuration once more, from its best checkpoint."""
    configuration = request.parent.configuration
    if configuration is None:
        raise ValueError(f"node {request.parent.id} has no configuration")
    best = max(request.checkpoints, key=lambda point: (point.score, -point.step), default=None)
    rationale = Rationale(
        "fallback", "No usable answer came; the parent's configuration is repeated with another seed."
    )
    return Proposal(configuration, best.step if best else None, rationale)


def fallback_repair(request: FailureRequest) -> Repair:
    """What is done when the error analyzer gave no usable answer: the same once more."""
    configuration = request.node.configuration
    if configuration is None:
        raise ValueError(f"node {request.node.id} has no configuration")
    return Repair(
        configuration, Rationale("fallback", "No usable answer came; the failed phase is tried again as it was.")
    )


def with_proposal(node: Node, request: ProposalRequest, proposal: Proposal) -> Node:
    """A planned node with its checked answer: ready to be submitted."""
    source = request.parent.id if proposal.resume_node is None else proposal.resume_node
    resume = None if proposal.resume_step is None else CheckpointReference(source, proposal.resume_step)
    if request.history and resume is not None:
        node = replace(node, kind=TransitionKind.EVOLVE, parent=source)
    return replace(
        node,
        status=NodeStatus.PROPOSED,
        configuration=proposal.configuration,
        resume=resume,
        total_steps=proposal.configuration.steps(request.train_rows),
        rationale=proposal.rationale,
    )


def with_repair(node: Node, request: FailureRequest, repair: Repair, train_rows: int) -> Node:
    """A planned debug node with its checked repair: ready to be submitted."""
    failed = request.node
    resume = failed.resume if repair.resume_step is None else CheckpointReference(failed.id, repair.resume_step)
    return replace(
        node,
        status=NodeStatus.PROPOSED,
        configuration=repair.configuration,
        resume=resume,
        total_steps=repair.configuration.steps(train_rows),
        rationale=repair.rationale,
    )
