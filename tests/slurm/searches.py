"""Searches for tests on real clusters: settings, profiles, and what two trees have in common."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from llmzero_hpc.cli.create import template
from llmzero_hpc.config import load_text
from llmzero_hpc.controller.creation import create
from llmzero_hpc.tasks.chains.cache import ensure_policy

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.search_directory import SearchDirectory

CPU_PROFILE = {"partition": "low", "cpus_per_node": 1, "memory_gb_per_node": 2, "time_limit_minutes": 30}
TWO_GPU_NODES = {
    "partition": "low",
    "nodes": 2,
    "gpus_per_node": 8,
    "gpu_type": "a100",
    "cpus_per_node": 2,
    "memory_gb_per_node": 2,
    "time_limit_minutes": 30,
}


def on_slurm(folder: Path, profile: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The `cluster` section of a search on the test cluster, quick to believe what it sees."""
    profiles = folder / "profiles.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    profiles.write_text(yaml.safe_dump({"default": profile}))
    quick = {"grace_seconds": 10, "submit_timeout_seconds": 30, "accounting_seconds": 60}
    return {"kind": "slurm", "profiles": str(profiles), **quick, **settings}


def rehearsal(root: Path, cluster: dict[str, Any], **changes: Any) -> SearchDirectory:
    """A new search in which nothing is trained, and nothing depends on when somebody looks."""
    settings = {
        "name": "rehearsal",
        "seed": 1,
        "trainer": "rehearsal",
        "model": "none",
        "task": {"name": "chains"},
        "validate_every_steps": 8,
        "early_stop": {"interval_seconds": 0, "first_step": 8},
        "budget": {"iterations": 16},
        "rehearsal": {"step_seconds": 0.02, "failure_rate": 0.1, "train_rows": 512},
        "configuration": {"epochs": 4.0, "batch_size": 64},
        "max_parallel_phases": 1,
        "tick_seconds": 0.5,
        "live_views": False,
        "cluster": cluster,
    }
    return create(load_text(yaml.safe_dump(settings | changes), "test"), root, time.time())


def short_demo(root: Path, cluster: dict[str, Any] | None = None) -> SearchDirectory:
    """The demo's settings with three short phases, to be run by a controller: real GRPO through TRL."""
    settings = yaml.safe_load(template("demo", "search.yaml"))
    settings["configuration"]["epochs"] = 0.022
    settings["validate_every_steps"] = 4
    settings["early_stop"]["first_step"] = 4
    settings["budget"] = {"iterations": 3}
    settings["tick_seconds"] = 0.2
    settings["live_views"] = False
    if cluster is not None:
        settings["cluster"] = cluster
    ensure_policy()
    return create(load_text(yaml.safe_dump(settings), "demo"), root, time.time())


def decisions(tree: Tree) -> Tree:
    """A tree without what depends on when and how often its jobs ran: two undisturbed searches have this in common."""
    return replace(
        tree,
        nodes=tuple(
            replace(
                node,
                attempts=(),
                created_at=0.0,
                judged_at=None,
                stop=None if node.stop is None else replace(node.stop, decided_at=0.0),
            )
            for node in tree
        ),
        evaluation=None if tree.evaluation is None else replace(tree.evaluation, attempts=()),
    )
