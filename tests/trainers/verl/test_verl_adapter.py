"""Shards of any number of processes become the adapter that was trained, bit by bit, or no adapter at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from verl_states import made_up_weights, save_sharded, write_description, write_state  # noqa: E402

from llmzero_hpc.errors import CorruptStateError  # noqa: E402
from llmzero_hpc.trainers.checkpoints import is_adapter  # noqa: E402
from llmzero_hpc.trainers.verl.adapter import extract_adapter  # noqa: E402
from llmzero_hpc.trainers.verl.layout import Layout  # noqa: E402
from llmzero_hpc.trainers.verl.state import drop_older, is_whole, states, take_up  # noqa: E402


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "training_state", tmp_path / "run")


def same(adapter: Path, weights: dict[str, torch.Tensor]) -> bool:
    found = load_file(adapter / "adapter_model.safetensors")
    expected = {name.replace(".default", ""): tensor for name, tensor in weights.items()}
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


@settings(max_examples=25, deadline=None)
@given(
    mesh=st.sampled_from([(1,), (2,), (3,), (7,), (1, 2), (2, 1), (2, 3), (3, 2)]),
    rows=st.integers(1, 9),
    rank=st.integers(1, 8),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_nothing_is_lost_of_any_number_of_processes(
    mesh: tuple[int, ...], rows: int, rank: int, dtype: torch.dtype
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Layout(Path(folder) / "states", Path(folder) / "run")
        weights = made_up_weights(rows, rank, dtype=dtype)
        state = write_state(place, 1, weights, mesh)
        assert is_whole(state)
        assert extract_adapter(state, Path(folder) / "step_1", "model") == 0
        assert same(Path(folder) / "step_1", weights)


@pytest.mark.slow
@pytest.mark.training
def test_what_three_processes_of_fsdp2_saved_is_whole(place: Layout, tmp_path: Path) -> None:
    write_description(place.state(1), 3)
    place.folder.mkdir()
    torch.multiprocessing.spawn(save_sharded, (3, place, tmp_path / "meeting"), nprocs=3)
    extract_adapter(place.state(1), tmp_path / "step_1", "model")
    assert same(tmp_path / "step_1", torch.load(place.folder / "whole.pt"))


def test_tensors_of_zeros_are_counted(place: Layout, tmp_path: Path) -> None:
    weights = made_up_weights()
    for name in weights:
        if ".lora_B." in name:
            weights[name].zero_()
    assert extract_adapter(write_state(place, 1, weights), tmp_path / "step_1", "model") == len(weights) // 2


def test_a_new_adapter_replaces_one_of_the_same_step(place: Layout, tmp_path: Path) -> None:
    target = tmp_path / "step_1"
    extract_adapter(write_state(place, 1, made_up_weights(3)), target, "model")
    extract_adapter(write_state(place, 2, made_up_weights(4)), target, "model")
    assert same(target, made_up_weights(4))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "missing",
    ["model_world_size_2_rank_1.pt", "fsdp_config.json", "lora_train_meta.json", "model_world_size_2_rank_0.pt"],
)
def test_half_a_state_makes_no_adapter(place: Layout, tmp_path: Path, missing: str) -> None:
    state = write_state(place, 1, made_up_weights(), (2,))
    (state / "actor" / missing).unlink()
    with pytest.raises(CorruptStateError, match="no adapter can be read"):
        extract_adapter(state, tmp_path / "step_1", "model")
    assert not is_adapter(tmp_path / "step_1")


def test_a_state_without_an_adapter_is_told(place: Layout, tmp_path: Path) -> None:
    state = write_state(place, 1, {"model.embed_tokens.weight": torch.ones(2, 2)})
    with pytest.raises(CorruptStateError, match="no LoRA weights"):
        extract_adapter(state, tmp_path / "step_1", "model")


@settings(max_examples=30, deadline=None)
@given(part=st.sampled_from(["model", "optim", "extra_state", "data"]), keep=st.floats(0, 0.999))
def test_a_file_that_was_cut_off_makes_a_state_worthless(part: str, keep: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Layout(Path(folder) / "states", Path(folder) / "run")
        state = write_state(place, 4, made_up_weights(), (2,))
        path = state / "data.pt" if part == "data" else state / "actor" / f"{part}_world_size_2_rank_1.pt"
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
        assert not is_whole(state)
        assert take_up(place) == 0
        assert not place.newest_state.exists()
        assert states(place) == ()


def test_a_hole_in_a_file_makes_a_state_worthless(place: Layout) -> None:
    state = write_state(place, 4, made_up_weights(rows=900))
    path = state / "actor" / "model_world_size_1_rank_0.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)  # as of blocks that never reached the disk
    path.write_bytes(content)
    assert not is_whole(state)


def test_a_run_takes_up_the_newest_whole_state_and_nothing_else_is_left(place: Layout) -> None:
    write_state(place, 2, made_up_weights())
    write_state(place, 4, made_up_weights())
    (write_state(place, 6, made_up_weights()) / "data.pt").unlink()
    assert take_up(place) == 4
    assert place.newest_state.read_text() == "4"
    assert states(place) == (4,)


@pytest.mark.parametrize("tracker", ["", "2", "two", "9"])
def test_a_tracker_that_a_kill_has_emptied_costs_nothing(place: Layout, tracker: str) -> None:
    write_state(place, 2, made_up_weights())
    write_state(place, 4, made_up_weights())
    place.newest_state.write_text(tracker)
    assert take_up(place) == 4
    assert place.newest_state.read_text() == "4"
    assert take_up(place) == 4


def test_older_states_go_and_newer_ones_stay(place: Layout) -> None:
    for step in (2, 4, 6):
        write_state(place, step, made_up_weights())
    drop_older(place, 4)
    assert states(place) == (4, 6)


def test_there_is_nothing_to_take_up_at_first(place: Layout) -> None:
    assert take_up(place) == 0
