"""Searches that serve their own model: a stand-in for it, and how such a search is driven and looked at."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord
from llmzero_hpc.store.server_directory import ServerDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.search.tree import Tree

TRAIN_ROWS = 64
PATIENCE_SECONDS = 400


def stand_in(folder: Path) -> dict[str, Any]:
    """The section `serve` for a model that is none, below `folder`."""
    model = folder / "Tiny Model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    return {
        "model": model,
        "python": program(folder, f"exec {sys.executable} {Path(__file__).parent}/stand_in_server.py"),
    }


def program(folder: Path, line: str) -> Path:
    """A script that takes the place of a Python."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "python"
    script.write_text(f'#!/bin/sh\n{line} "$@"\n')
    script.chmod(0o755)
    return script


def search(root: Path, serve: dict[str, Any], iterations: int = 3, **changes: Any) -> SearchDirectory:
    """A rehearsed search whose agents are served; `agents` in `changes` is merged in."""
    agents = {"serve": serve, "vision": False, "max_retries": 0, **changes.pop("agents", {})}
    values: dict[str, Any] = {
        "name": root.name,
        "trainer": "rehearsal",
        "model": "none",
        "task": {"name": "chains"},
        "configuration": {"batch_size": 16, "epochs": 2, "max_response_length": 512},
        "validate_every_steps": 2,
        "early_stop": {"interval_seconds": 0, "first_step": 4},
        "budget": {"iterations": iterations},
        "rehearsal": {"step_seconds": 0.0, "train_rows": TRAIN_ROWS, "failure_rate": 0.0},
        "tick_seconds": 0.1,
        "live_views": False,
        "agents": agents,
    }
    config = SearchConfig.model_validate(values | changes)
    SearchDirectory.create(root, SearchRecord.new(config, TRAIN_ROWS, time.time()))
    return SearchDirectory.open(root)


def server_of(directory: SearchDirectory) -> ServerDirectory:
    """The server that it asks for."""
    server = ServerDirectory.of(directory)
    assert server is not None
    return server


def tick_until(daemon: Daemon, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Tick until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        daemon.tick()
        assert time.monotonic() < deadline, daemon.controller.tree
        time.sleep(0.05)


def run(directory: SearchDirectory) -> Tree:
    """The search from where it is to its end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with Daemon(directory) as daemon:
        while not (outcome := daemon.tick()).finished:
            assert time.monotonic() < deadline, outcome
            time.sleep(0.05)
    return directory.read_tree()


def authors(tree: Tree) -> set[str]:
    """Who proposed."""
    return {node.rationale.author for node in tree if node.id > 0 and node.rationale}


def files_with(secret: str, *folders: Path) -> set[str]:
    """Names of the files that hold a text."""
    found = set()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and secret.encode() in path.read_bytes():
                found.add(path.name)
    return found
