"""The best strategy as a file: every phase with its whole configuration, why it was chosen, and what it reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from llmzero_hpc.errors import SearchNotFoundError
from llmzero_hpc.search.strategy import StrategyPhase, path
from llmzero_hpc.trainers.checkpoints import checkpoint_path

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.node import Checkpoint, Node
    from llmzero_hpc.store.search_directory import SearchDirectory

STRATEGY_FORMAT = 1


def best_adapter(directory: SearchDirectory) -> Path:
    """Folder of the adapter of the best strategy at its best step.

    Raises:
        SearchNotFoundError: no phase has a validation score yet.
    """
    node, best = _best(directory)
    return checkpoint_path(directory.phase(node.id).checkpoints, best.step)


def strategy_document(directory: SearchDirectory) -> bytes:
    """YAML of the best strategy.

    Raises:
        SearchNotFoundError: no phase has a validation score yet.
    """
    node, best = _best(directory)
    tree, record = directory.read_tree(), directory.record
    evaluation = tree.evaluation
    document = {
        "format": STRATEGY_FORMAT,
        "search": record.config.name,
        "seed": record.config.seed,
        "trainer": record.config.trainer,
        "simulated": record.config.trainer == "rehearsal",
        "model": record.config.model,
        "task": record.config.task.model_dump(mode="json"),
        "train_rows": record.train_rows,
        "program_version": record.program_version,
        "validation_score": best.score,
        "test_score": evaluation.score if evaluation else None,
        "phases": [_phase(phase) for phase in path(tree, node.id, best.step)],
    }
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text.encode()


def _best(directory: SearchDirectory) -> tuple[Node, Checkpoint]:
    node = directory.read_tree().best()
    if node is None or node.best is None:
        raise SearchNotFoundError(
            f"{directory.record.config.name} has no validation score yet", "`llmzero-hpc status` tells how far it is"
        )
    return node, node.best


def _phase(phase: StrategyPhase) -> dict[str, Any]:
    node = phase.node
    configuration = node.configuration
    return {
        "node": node.id,
        "transition": node.kind.value,
        "seed": node.seed,
        "first_step": phase.first_step,
        "last_step": phase.last_step,
        "validation_score": next((c.score for c in node.checkpoints if c.step == phase.last_step), None),
        "diagnosis": node.rationale.diagnosis if node.rationale else "",
        "author": node.rationale.author if node.rationale else "",
        "configuration": {} if configuration is None else configuration.values() | dict(configuration.overrides),
    }
