"""What a search has found as strategies: the best one, the best static one, and the adapter."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llmzero_hpc.errors import SearchNotFoundError
from llmzero_hpc.search.strategy import path
from llmzero_hpc.store.strategy_file import STRATEGY_FORMAT, PhaseOfStrategy, StrategyFile, encoded
from llmzero_hpc.trainers.checkpoints import checkpoint_path

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.node import Node
    from llmzero_hpc.search.strategy import StrategyPhase
    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.search_directory import SearchDirectory

_HOUR = 3600.0


def best_adapter(directory: SearchDirectory) -> Path:
    """Folder of the adapter of the best strategy at its best step.

    Raises:
        SearchNotFoundError: no phase has a validation score yet.
    """
    node = _best(directory, directory.read_tree().best())
    return checkpoint_path(directory.phase(node.id).checkpoints, node.best.step if node.best else 0)


def best_strategy(directory: SearchDirectory) -> StrategyFile:
    """The best strategy of a search.

    Raises:
        SearchNotFoundError: no phase has a validation score yet.
    """
    tree = directory.read_tree()
    return _strategy(directory, tree, _best(directory, tree.best()))


def best_static(directory: SearchDirectory) -> StrategyFile:
    """The best single phase from scratch of a search.

    Raises:
        SearchNotFoundError: none has a validation score yet.
    """
    tree = directory.read_tree()
    static = [node for node in tree.scored() if node.resume is None]
    best = max(static, key=lambda node: (node.score or 0.0, -node.id), default=None)
    return _strategy(directory, tree, _best(directory, best))


def strategy_document(directory: SearchDirectory) -> bytes:
    """YAML of the best strategy.

    Raises:
        SearchNotFoundError: no phase has a validation score yet.
    """
    return encoded(best_strategy(directory))


def _best(directory: SearchDirectory, node: Node | None) -> Node:
    if node is None or node.best is None:
        raise SearchNotFoundError(
            f"{directory.record.config.name} has no validation score yet", "`llmzero-hpc status` tells how far it is"
        )
    return node


def _strategy(directory: SearchDirectory, tree: Tree, node: Node) -> StrategyFile:
    record, config = directory.record, directory.record.config
    best = node.best
    assert best is not None  # noqa: S101 - chosen by its score
    evaluation = tree.evaluation
    at_the_end = evaluation is not None and (evaluation.checkpoint.node, evaluation.checkpoint.step) == (
        node.id,
        best.step,
    )
    parts = path(tree, node.id, best.step)
    return StrategyFile(
        format=STRATEGY_FORMAT,
        search=config.name,
        method=config.method.kind,
        seed=config.seed,
        created=datetime.fromtimestamp(record.created_at, UTC).isoformat(timespec="seconds"),
        program_version=record.program_version,
        trainer=config.trainer,
        simulated=config.trainer == "rehearsal",
        model=config.model,
        task=config.task,
        train_rows=record.train_rows,
        validate_every_steps=config.validate_every_steps,
        bounds=config.bounds,
        hardware=config.hardware,
        validation_score=best.score,
        test_score=evaluation.score if evaluation is not None and at_the_end else None,
        phases=tuple(_phase(part, before) for part, before in zip(parts, (None, *parts), strict=False)),
    )


def _phase(part: StrategyPhase, before: StrategyPhase | None) -> PhaseOfStrategy:
    node = part.node
    if node.configuration is None:
        raise ValueError(f"node {node.id} was trained without a configuration")
    score, handed = _score(part), None if before is None else _score(before)
    earlier = None if before is None else before.node.configuration
    return PhaseOfStrategy(
        node=node.id,
        transition=node.kind,
        seed=node.seed,
        resumes=None if node.resume is None else node.resume.step,
        first_step=part.first_step,
        last_step=part.last_step,
        validation_score=score,
        gain=None if score is None or handed is None else score - handed,
        device_hours=node.device_seconds / _HOUR,
        author=node.rationale.author if node.rationale else "",
        rule=node.rationale.rule if node.rationale else "",
        diagnosis=node.rationale.diagnosis if node.rationale else "",
        evidence=node.rationale.evidence if node.rationale else (),
        changes={} if earlier is None else earlier.differences(node.configuration),
        configuration=node.configuration,
    )


def _score(part: StrategyPhase) -> float | None:
    return next((point.score for point in part.node.checkpoints if point.step == part.last_step), None)
