"""The files between the controller and a trainer: specifications, and checkpoints that are whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import ChainsTask, FilesTask, Hardware, Rehearsal
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path, complete_checkpoints, whole_folder
from llmzero_hpc.trainers.specification import read_evaluation, read_phase, write_specification

if TYPE_CHECKING:
    from collections.abc import Callable

TASK = FilesTask(name="files", train=Path("/d/t.jsonl"), validation=Path("/d/v.jsonl"), reward=Path("/d/r.py"))


@given(
    learning_rate=st.floats(1e-8, 0.1),
    epochs=st.one_of(st.floats(1e-4, 1000.0), st.integers(1, 5).map(float)),
    overrides=st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.one_of(st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.text()),
        max_size=3,
    ),
    parent=st.none() | st.just(Path("/a/checkpoints/step_3")),
    task=st.sampled_from([ChainsTask(name="chains"), TASK]),
)
def test_a_specification_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    learning_rate: float,
    epochs: float,
    overrides: dict[str, bool | int | float | str],
    parent: Path | None,
    task: ChainsTask | FilesTask,
) -> None:
    spec = PhaseSpec(
        search="ünder",
        node=3,
        seed=5,
        model="builtin:chains",
        task=task,
        configuration=Configuration(learning_rate=learning_rate, epochs=epochs, overrides=overrides),
        first_step=4,
        total_steps=9,
        validate_every_steps=2,
        validation_max_response_length=64,
        parent_adapter=parent,
        checkpoints=Path("/b/checkpoints"),
        training_state=Path("/b/training_state"),
        hardware=Hardware(device="cuda", gpus=2),
        rehearsal=Rehearsal(),
    )
    file = tmp_path_factory.getbasetemp() / "config.yaml"
    write_specification(file, spec)
    again = read_phase(file)
    assert again == spec
    for name, value in overrides.items():
        assert type(again.configuration.overrides[name]) is type(value)


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    spec = EvaluationSpec(
        search="small",
        node=2,
        step=10,
        seed=0,
        model="/m",
        task=TASK,
        split=Split.TEST,
        adapter=Path("/a"),
        max_response_length=8,
        hardware=Hardware(),
        rehearsal=Rehearsal(),
        result=tmp_path / "result.json",
    )
    write_specification(tmp_path / "config.yaml", spec)
    assert read_evaluation(tmp_path / "config.yaml") == spec


def test_a_file_that_is_no_specification_is_named(tmp_path: Path, make_spec: Callable[..., PhaseSpec]) -> None:
    file = tmp_path / "config.yaml"
    with pytest.raises(ConfigurationError, match=r"config\.yaml cannot be read"):
        read_phase(file)
    file.write_text("a: [")
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        read_phase(file)
    write_specification(file, make_spec())
    file.write_text(file.read_text().replace("total_steps: 4", "total_steps: four"))
    with pytest.raises(ConfigurationError, match="total_steps"):
        read_phase(file)
    with pytest.raises(ConfigurationError, match="step: Field required"):
        read_evaluation(file)


def test_only_whole_adapters_count_as_checkpoints(tmp_path: Path) -> None:
    assert complete_checkpoints(tmp_path / "nowhere") == ()
    for step in (30, 4, 100):
        with whole_folder(checkpoint_path(tmp_path, step)) as folder:
            assert complete_checkpoints(tmp_path) == tuple(sorted({30, 4, 100} & set(complete_checkpoints(tmp_path))))
            (folder / "adapter_config.json").write_text("{}")
            (folder / "adapter_model.safetensors").write_bytes(b"x")
            assert step not in complete_checkpoints(tmp_path)
    for name, files in {
        "step_5": ["adapter_config.json"],
        "step_6": [],
        "step_07": ["adapter_config.json", "adapter_model.safetensors"],
        ".tmp-step_8": ["adapter_config.json", "adapter_model.safetensors"],
    }.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("x")
    (tmp_path / "step_9").mkdir()
    (tmp_path / "step_9" / "adapter_config.json").write_text("{}")
    (tmp_path / "step_9" / "adapter_model.safetensors").write_bytes(b"")
    assert complete_checkpoints(tmp_path) == (4, 30, 100)


def _fill_half(target: Path) -> None:
    with whole_folder(target) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError


def test_a_folder_that_could_not_be_filled_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "step_2"
    with whole_folder(target) as folder:
        (folder / "file").write_text("old")
    with pytest.raises(RuntimeError):
        _fill_half(target)
    assert (target / "file").read_text() == "old"
    with whole_folder(target) as folder:
        (folder / "file").write_text("new")
    assert (target / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["step_2"]
