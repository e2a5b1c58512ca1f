"""`export --jobs`: scripts that train the strategy anew, beside the result."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from command_line import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import CommandLine


def test_the_command_that_is_named_trains_the_exported_adapter(finished: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "my strategy"
    said = finished("export", folder, "--jobs")
    assert said.code == 0
    command = said.out.split("`")[1]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=PATIENCE)

    trained = list(folder.glob("jobs/phase_*/checkpoints/step_*/adapter_model.safetensors"))
    exported = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    assert exported in {path.read_bytes() for path in trained}


def test_a_folder_with_jobs_in_it_is_left_alone(finished: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "out" / "jobs").mkdir(parents=True)

    assert "jobs is there already" in finished.refused("export", tmp_path / "out", "--jobs").err
    assert not (tmp_path / "out" / "strategy.yaml").exists()


def test_phases_that_are_gone_are_named_before_anything_is_written(finished: CommandLine, tmp_path: Path) -> None:
    state = finished.folder / "state"
    shutil.copytree(state / "done", tmp_path / "copy")
    (tmp_path / "copy" / "phases" / "0000" / "config.yaml").unlink()

    assert "config.yaml cannot be read" in finished.refused("export", tmp_path / "out", tmp_path / "copy", "--jobs").err
    assert not (tmp_path / "out").exists()
