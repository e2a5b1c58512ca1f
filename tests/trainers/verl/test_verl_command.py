"""What VeRL is going to be told can be read before anything is submitted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.controller.creation import preview
from llmzero_hpc.trainers.verl.hydra_text import assignment

if TYPE_CHECKING:
    from pathlib import Path


def test_a_dry_run_shows_the_whole_command_in_the_place_where_it_would_run(model_4b: Path, tmp_path: Path) -> None:
    config = SearchConfig.model_validate(
        {
            "name": "dry",
            "trainer": "verl",
            "model": str(model_4b),
            "task": {"name": "chains"},
            "hardware": {"gpus": 8, "gpu_memory_gb": 80},
            "configuration": {"learning_rate": 3e-5},
        }
    )
    root = tmp_path / "state" / "dry"
    job = preview(config, root, 4096, 0.0)
    command = job.framework_command
    assert command[:3] == (sys.executable, "-m", "verl.trainer.main_ppo")
    attempt = root / "phases" / "0000" / "attempts" / "1"
    assert assignment("data.train_files", attempt / "verl" / "train.parquet") in command
    assert assignment("actor_rollout_ref.actor.optim.lr", 3e-5) in command
    assert str(attempt) in job.script
    assert not root.exists()
