"""The scripts that start Ray: to the letter, sound to a shell's critic, and replaceable."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from llmzero_hpc.cluster.ray_cluster import HEAD_SCRIPT, WORKER_SCRIPT, write_ray_scripts
from llmzero_hpc.errors import ConfigurationError

GOLDEN = Path(__file__).parent / "golden_ray"
SHELLCHECK = shutil.which("shellcheck")


def test_scripts_to_the_letter(tmp_path: Path) -> None:
    assert write_ray_scripts(tmp_path, 2) == str(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    # Written anew: write_ray_scripts(Path("tests/cluster/golden_ray"), 2)
    assert written == {path.name: path.read_text() for path in GOLDEN.iterdir()}


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    assert SHELLCHECK is not None
    done = subprocess.run([SHELLCHECK, *GOLDEN.iterdir()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_users_own_script_is_used_instead(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / WORKER_SCRIPT).write_text("of {{ nodes }}")
    write_ray_scripts(tmp_path, 3, own)
    assert (tmp_path / WORKER_SCRIPT).read_text() == "of 3"
    assert "ray start --head" in (tmp_path / HEAD_SCRIPT).read_text()
    (own / WORKER_SCRIPT).write_text("\n{{ nods }}")
    with pytest.raises(ConfigurationError, match=WORKER_SCRIPT):
        write_ray_scripts(tmp_path, 3, own)
