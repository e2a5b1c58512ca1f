"""Scripts of an exported strategy, compared to the letter; `python tests/cluster/golden_chain.py` writes them anew."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

from llmzero_hpc.cluster.chain import HERE, SCRIPT, SUBMIT, Link, write_chain
from llmzero_hpc.config import load_text
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import ChainsTask, Hardware, Rehearsal
from llmzero_hpc.store.phase_directory import PhaseDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec

FOLDER = Path(__file__).parent / "golden_chain"
PROFILES = Path(__file__).parent / "golden" / "profiles.yaml"
_SHOWN = "/project/my strategy/jobs"
_SEARCH = """\
name: demo-2
model: builtin:chains
task: {name: chains}
trainer: rehearsal
"""


def golden_chain(scratch: Path) -> dict[str, str]:
    """The scripts of two phases and a score on two machines with GPUs, as if they lay elsewhere; by name."""
    folder = scratch / "my strategy" / "jobs"
    text = f"{_SEARCH}cluster: {{kind: slurm, profile: a100-two-nodes, profiles: '{PROFILES}'}}\n"
    chain = tuple(_phase(folder, number) for number in (1, 2))
    with mock.patch("sys.executable", "/home/me/.venv/bin/python3"):
        write_chain((*chain, _score(folder, chain[-1])), load_text(text, "golden"), folder)
    scripts = {SUBMIT: folder / SUBMIT, HERE: folder / HERE, f"phase_2_{SCRIPT}": folder / "phase_2" / SCRIPT}
    return {name: path.read_text(encoding="utf-8").replace(str(folder), _SHOWN) for name, path in scripts.items()}


def _phase(folder: Path, number: int) -> Link:
    place = PhaseDirectory(folder / f"phase_{number}")
    spec = PhaseSpec(
        search="demo-2",
        node=number,
        seed=7,
        model="builtin:chains",
        task=ChainsTask(),
        configuration=Configuration(),
        first_step=1 + 10 * (number - 1),
        total_steps=10,
        validate_every_steps=5,
        validation_max_response_length=64,
        parent_adapter=None if number == 1 else folder / "phase_1" / "checkpoints" / "step_10",
        checkpoints=place.checkpoints,
        training_state=place.training_state,
        hardware=Hardware(nodes=2, gpus=16),
        rehearsal=Rehearsal(),
    )
    return Link(place, spec)


def _score(folder: Path, last: Link) -> Link:
    place, phase = PhaseDirectory(folder / "test"), last.specification
    spec = EvaluationSpec(
        search=phase.search,
        node=phase.node,
        step=20,
        seed=phase.seed,
        model=phase.model,
        task=phase.task,
        split=Split.TEST,
        adapter=last.folder.checkpoints / "step_20",
        max_response_length=64,
        hardware=phase.hardware,
        rehearsal=phase.rehearsal,
        result=place.result,
    )
    return Link(place, spec)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in golden_chain(Path(scratch)).items():
            (FOLDER / name).write_text(text, encoding="utf-8")
