"""The script that starts a server: to the letter, sound to a shell's critic, and replaceable."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llmzero_hpc.cluster.server_job import TEMPLATE, write_server_script
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.store.phase_directory import AttemptDirectory

GOLDEN = Path(__file__).parent / "golden"
SHELLCHECK = shutil.which("shellcheck")
PLAIN = {
    "python": "/opt/vllm/bin/python",
    "model": "/models/Qwen3-32B",
    "served_as": "Qwen3-32B",
    "gpus": 1,
    "max_model_len": 32768,
    "options": (),
}
STRANGE = {
    **PLAIN,
    "model": "/models/it's; rm -rf $HOME",
    "served_as": "a b",
    "gpus": 4,
    "options": ("--quantization=awq", '--limit-mm-per-prompt={"image": 4}', "--foo=$(reboot)"),
}


@pytest.mark.parametrize(("name", "values"), [("plain", PLAIN), ("strange", STRANGE)])
def test_script_to_the_letter(tmp_path: Path, name: str, values: dict[str, Any]) -> None:
    write_server_script(AttemptDirectory(tmp_path), **values)
    assert (tmp_path / TEMPLATE).read_text() == (GOLDEN / f"{name}.sh").read_text()


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    assert SHELLCHECK is not None
    # Values may look like variables.
    done = subprocess.run(
        [SHELLCHECK, "--exclude=SC2016", *GOLDEN.iterdir()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("has_metadata", [True, False])
def test_what_it_starts(tmp_path: Path, has_metadata: bool) -> None:
    """Every value arrives as the one word that it is."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {int(not has_metadata)}\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    write_server_script(AttemptDirectory(tmp_path), **{**STRANGE, "python": str(python)})
    environment = {"LLMZERO_SERVER_HOST": "10.0.0.7", "LLMZERO_SERVER_PORT": "23456", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", str(tmp_path / TEMPLATE)], env=environment, capture_output=True, text=True, check=True
    )
    words = done.stdout.splitlines()
    command = (
        ["vllm.entrypoints.cli.main", "serve"] if has_metadata else ["vllm.entrypoints.openai.api_server", "--model"]
    )
    assert words[:4] == ["-m", *command, STRANGE["model"]]
    for option, value in (("--host", "10.0.0.7"), ("--port", "23456"), ("--served-model-name", "a b")):
        assert words[words.index(option) + 1] == value
    assert words[words.index("--tensor-parallel-size") + 1] == "4"
    assert words[-3:] == list(STRANGE["options"])


def test_a_users_own_script_is_used_instead(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / TEMPLATE).write_text("serve {{ model | quote }}")
    write_server_script(AttemptDirectory(tmp_path), own, **PLAIN)
    assert (tmp_path / TEMPLATE).read_text() == "serve /models/Qwen3-32B"
    (own / TEMPLATE).write_text("{{ modle }}")
    with pytest.raises(ConfigurationError, match=TEMPLATE):
        write_server_script(AttemptDirectory(tmp_path), own, **PLAIN)
