"""An exported strategy: its scripts to the letter, no value breaks out of them, and they train the same once more."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from golden_chain import FOLDER, golden_chain

from llmzero_hpc.cluster.chain import HERE, SCRIPT, SUBMIT, links, write_chain
from llmzero_hpc.config import load_text
from llmzero_hpc.controller.creation import create
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.errors import ConfigurationError, SearchNotFoundError
from llmzero_hpc.search.strategy import path
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.trainers.checkpoints import checkpoint_path, complete_checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.cluster.chain import Link
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.store.search_directory import SearchDirectory

HOSTILE = 'it\'s $(touch boom) `touch boom`; "x" & touch boom #'


def new_search(root: Path, **changes: Any) -> SearchDirectory:
    settings: dict[str, Any] = {
        "name": "again",
        "trainer": "rehearsal",
        "model": "builtin:chains",
        "task": {"name": "chains"},
        "configuration": {"batch_size": 64, "epochs": 2},
        "validate_every_steps": 4,
        "budget": {"iterations": 5},
        "early_stop": {"interval_seconds": 0, "first_step": 4},
        "rehearsal": {"step_seconds": 0, "failure_rate": 0.3},
        "seed": 3,
        "live_views": False,
        "tick_seconds": 0.02,
    }
    return create(load_text(yaml.safe_dump(settings | changes), "test"), root, time.time())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SearchDirectory:
    """A search on this machine whose best strategy has several phases."""
    directory = new_search(tmp_path_factory.mktemp("search") / "again")
    with Daemon(directory) as daemon:
        assert daemon.loop().finished
    return directory


def on_slurm(search: SearchDirectory, folder: Path, profile: dict[str, Any]) -> SearchConfig:
    """The search's settings, had it run on Slurm."""
    profiles = folder / "profiles.yaml"
    profiles.write_text(yaml.safe_dump({"default": profile}))
    return search.record.config.model_copy(update={"cluster": SlurmClusterConfig(kind="slurm", profiles=profiles)})


def run(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", script], check=False, capture_output=True, text=True, timeout=300)


def test_the_scripts_are_these_to_the_letter(tmp_path: Path) -> None:
    written = golden_chain(tmp_path)

    assert written == {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = []
    for name, text in golden_chain(tmp_path).items():
        scripts.append(tmp_path / name)
        scripts[-1].write_text(text, encoding="utf-8")
    found = subprocess.run(["shellcheck", *scripts], check=False, capture_output=True, text=True)

    assert not found.stdout


@pytest.fixture(scope="module")
def trained(finished: SearchDirectory, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Link, ...]]:
    """A chain that was run here, in a folder with a name that a shell would like to run."""
    folder = tmp_path_factory.mktemp("chain") / HOSTILE
    chain = links(finished, folder)
    assert write_chain(chain, finished.record.config, folder) == (HERE,)
    done = run(folder / HERE)
    assert done.returncode == 0, done.stderr
    assert not list(folder.parent.rglob("boom"))
    return folder, chain


def test_a_chain_trains_the_strategy_again_to_the_bit(
    finished: SearchDirectory, trained: tuple[Path, tuple[Link, ...]]
) -> None:
    tree, chain = finished.read_tree(), trained[1]
    best = tree.best()
    assert best is not None
    assert best.best is not None
    parts = path(tree, best.id, best.best.step)
    assert len(parts) == len(chain) - 1 > 1
    for part, link in zip(parts, chain, strict=False):
        steps = complete_checkpoints(link.folder.checkpoints)
        assert steps[-1] == part.last_step
        for step in steps:
            again = checkpoint_path(link.folder.checkpoints, step) / "adapter_model.safetensors"
            first = checkpoint_path(finished.phase(part.node.id).checkpoints, step) / "adapter_model.safetensors"
            assert again.read_bytes() == first.read_bytes()
    assert tree.evaluation is not None
    assert json.loads(chain[-1].folder.result.read_text())["score"] == tree.evaluation.score


def test_a_chain_that_is_run_again_trains_nothing_again(trained: tuple[Path, tuple[Link, ...]]) -> None:
    folder, chain = trained
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("adapter_model.safetensors")}
    assert run(folder / HERE).returncode == 0

    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("adapter_model.safetensors")}
    assert len(chain[0].folder.attempts()) == 2


def test_a_phase_that_fails_ends_the_chain(finished: SearchDirectory, tmp_path: Path) -> None:
    chain = links(finished, tmp_path)
    first = chain[0].specification
    failing = first.rehearsal.model_copy(update={"failure_rate": 1.0})
    broken = replace(chain[0], specification=replace(first, rehearsal=failing))
    write_chain((broken, *chain[1:]), finished.record.config, tmp_path)

    assert run(tmp_path / HERE).returncode != 0
    assert chain[0].folder.attempts()
    assert not chain[1].folder.attempts()


def test_a_missing_specification_is_one_clear_line(finished: SearchDirectory, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.root, copy)
    directory = type(finished).open(copy)
    directory.phase(0).specification.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        links(directory, tmp_path / "out")


def test_a_search_without_a_score_has_no_chain(tmp_path: Path) -> None:
    with pytest.raises(SearchNotFoundError, match="no validation score"):
        links(new_search(tmp_path / "young"), tmp_path / "out")


@pytest.mark.parametrize("extra", [{}, {"modules": ["cuda/12.1"], "virtual_environment": "/opt/my env"}])
def test_jobs_have_the_options_of_the_profile_and_wait_for_each_other(
    extra: dict[str, Any], finished: SearchDirectory, tmp_path: Path
) -> None:
    config = on_slurm(finished, tmp_path, {"partition": "gpu", "account": "a-b", **extra})
    folder = tmp_path / "it's out"
    chain = links(finished, folder)
    assert write_chain(chain, config, folder) == (SUBMIT, HERE)
    script = (chain[0].folder.path / SCRIPT).read_text()

    assert "#SBATCH --partition=gpu" in script
    assert "#SBATCH --account=a-b" in script
    assert "submitit" not in script.lower()
    last = script.splitlines()[-1]
    assert last.startswith("srun --unbuffered --kill-on-bad-exit=1")
    assert ("'/opt/my env/bin/python'" if extra else sys.executable) in last
    assert ("module load cuda/12.1" in script) is bool(extra)


def test_submission_hands_each_job_the_id_of_the_one_before(
    finished: SearchDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for sbatch that notes its arguments; the real one runs in `tests/slurm`."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    stand_in = programs / "sbatch"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexpr 100 + $(wc -l < {calls}) | sed "s/$/;cluster/"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    folder = tmp_path / "out"
    chain = links(finished, folder)
    write_chain(chain, on_slurm(finished, tmp_path, {}), folder)
    done = run(folder / SUBMIT)

    assert done.returncode == 0, done.stderr
    said = [line.split() for line in calls.read_text().splitlines()]
    assert [line[-1] for line in said] == [f"{link.folder.path.name}/{SCRIPT}" for link in chain]
    assert said[0] == ["--parsable", f"phase_1/{SCRIPT}"]
    for number, line in enumerate(said[1:], start=101):
        assert line[:-1] == ["--parsable", f"--dependency=afterok:{number}", "--kill-on-invalid-dep=yes"]
    assert "phase_1: job 101" in done.stdout
