"""VeRL's log, as a run of its left it, becomes rows: whatever is torn, late or lost, and never ahead of an adapter."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from verl_phases import SMALL, rows_of, weights_of, write_task  # noqa: E402
from verl_states import made_up_weights, write_state  # noqa: E402

from llmzero_hpc.sections import Hardware, Rehearsal  # noqa: E402
from llmzero_hpc.store.atomic import make_folder  # noqa: E402
from llmzero_hpc.store.metrics_log import MetricsWriter, read_series  # noqa: E402
from llmzero_hpc.store.phase_directory import PhaseDirectory  # noqa: E402
from llmzero_hpc.trainers.base import PhaseSpec  # noqa: E402
from llmzero_hpc.trainers.checkpoints import checkpoint_path, is_adapter  # noqa: E402
from llmzero_hpc.trainers.verl.layout import Layout  # noqa: E402
from llmzero_hpc.trainers.verl.metrics import Shape, alarms, canonical_metrics, raw_metrics, validation_result  # noqa: E402
from llmzero_hpc.trainers.verl.mirror import Mirror  # noqa: E402
from llmzero_hpc.trainers.verl.state import states, take_up  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOG = (Path(__file__).parent / "logs" / "metrics.jsonl").read_bytes()
LINES = LOG.splitlines(keepends=True)
"""Of four steps, of which the second and the fourth were validated."""
SHAPE = Shape(response_limit=6, responses=16, steps_per_epoch=6)


class HonestWriter(MetricsWriter):
    """Fails when a row with a score comes before its adapter."""

    def __init__(self, spec: PhaseSpec, attempt: int) -> None:
        super().__init__(PhaseDirectory(spec.checkpoints.parent).attempt(attempt).metrics, attempt, 0)
        self._checkpoints = spec.checkpoints

    def write(self, step: int, values: Mapping[str, float], raw: Mapping[str, float] | None = None) -> None:
        assert "val_score" not in values or is_adapter(checkpoint_path(self._checkpoints, step))
        super().write(step, values, raw)


class Phase:
    """A phase of four steps in a folder, and the runs of VeRL that never were."""

    def __init__(self, folder: Path, first_step: int = 1) -> None:
        self.spec = PhaseSpec(
            search="small",
            node=0,
            seed=1,
            model="model",
            task=write_task(folder / "task"),
            configuration=SMALL,
            first_step=first_step,
            total_steps=4,
            validate_every_steps=2,
            validation_max_response_length=8,
            parent_adapter=None,
            checkpoints=folder / "0000" / "checkpoints",
            training_state=folder / "0000" / "training_state",
            hardware=Hardware(device="cpu"),
            rehearsal=Rehearsal(),
        )
        self.told: list[str] = []
        self.place = self._place(1)
        make_folder(self.spec.checkpoints)

    def run(self, attempt: int = 1) -> Mirror:
        """A new run: what a job's command does before it starts VeRL."""
        self.place = self._place(attempt)
        resumed = take_up(self.place)
        mirror = Mirror(self.spec, self.place, HonestWriter(self.spec, attempt), resumed, self.told.append)
        folder = PhaseDirectory(self.spec.checkpoints.parent)
        earlier = [self._place(number).metrics for number in range(1, attempt)]
        mirror.catch_up(earlier, [folder.attempt(number).metrics for number in range(1, attempt + 1)])
        return mirror

    def log(self, *lines: bytes) -> None:
        with self.place.metrics.open("ab") as stream:
            stream.writelines(lines)

    def save(self, step: int, weights: Mapping[str, Any] | None = None) -> None:
        write_state(self.place, step, weights or made_up_weights(rows=step + 1))

    def _place(self, attempt: int) -> Layout:
        place = Layout.of_run(self.spec.training_state, PhaseDirectory(self.spec.checkpoints.parent).attempt(attempt))
        make_folder(place.folder)
        make_folder(place.states)
        return place


def train(phase: Phase, mirror: Mirror, steps: Sequence[int] = (1, 2, 3, 4)) -> None:
    for step in steps:
        if step % 2 == 0:
            phase.save(step)
        phase.log(LINES[step - 1])
        mirror.look()


def test_a_run_leaves_rows_adapters_and_its_newest_state(tmp_path: Path) -> None:
    phase = Phase(tmp_path, first_step=31)
    mirror = phase.run()
    assert not mirror.is_score_due
    train(phase, mirror, (1, 2, 3))
    assert not mirror.is_complete
    train(phase, mirror, (4,))
    assert mirror.is_complete
    rows = rows_of(phase.spec)
    assert list(rows) == [31, 32, 33, 34]
    assert [step for step, row in rows.items() if row.validation_score is not None] == [32, 34]
    assert list(weights_of(phase.spec)) == [32, 34]
    assert states(phase.place) == (4,)
    assert not phase.told


def test_canonical_names_stand_beside_all_of_verls(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    train(phase, phase.run(), (1, 2))
    row = json.loads((phase.spec.checkpoints.parent / "attempts" / "1" / "metrics.jsonl").read_text().splitlines()[1])
    theirs = json.loads(LINES[1])["data"]
    assert row["raw"] == theirs
    assert row["metrics"]["kl"] == theirs["actor/kl_loss"]
    assert row["metrics"]["policy_loss"] == theirs["actor/pg_loss"]
    assert row["metrics"]["val_score/even/sums"] == theirs["val-core/even/sums/acc/mean@1"]
    assert row["metrics"]["epoch"] == pytest.approx(2 / 6)
    assert row["metrics"]["tokens_per_second"] == pytest.approx(6 * 16 / theirs["timing_s/step"])


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(LOG)), max_size=8))
def test_lines_torn_anywhere_are_read_when_they_are_whole(cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        phase = Phase(Path(folder))
        mirror = phase.run()
        phase.save(2)
        phase.save(4)
        edges = [0, *sorted(cuts), len(LOG)]
        for start, end in pairwise(edges):
            phase.log(LOG[start:end])
            mirror.look()
        assert mirror.is_complete
        assert list(rows_of(phase.spec)) == [1, 2, 3, 4]


def test_what_is_no_line_of_verls_is_passed_over(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    mirror = phase.run()
    phase.log(b"\n", b"not json\n", b"[1]\n", b'{"step": "1", "data": {}}\n', b'{"step": 1}\n', LINES[0])
    mirror.look()
    assert list(rows_of(phase.spec)) == [1]


def test_a_validation_without_its_adapter_is_no_score(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    mirror = phase.run()
    phase.log(*LINES)
    mirror.look()
    assert [row.validation_score for row in rows_of(phase.spec).values()] == [None] * 4
    assert not mirror.is_complete
    assert len(phase.told) == 2


def test_a_state_that_is_being_written_is_let_be(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    mirror = phase.run()
    train(phase, mirror, (1, 2))
    phase.save(4)
    (phase.place.state(4) / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"half")
    phase.place.newest_state.write_text("2")
    mirror.look()
    assert states(phase.place) == (2, 4)
    assert list(weights_of(phase.spec)) == [2]


def test_a_run_that_was_killed_is_continued_without_its_later_steps(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    train(phase, phase.run(), (1, 2, 3))
    mirror = phase.run(2)
    assert not mirror.is_score_due
    train(phase, mirror, (3, 4))
    assert mirror.is_complete
    assert list(rows_of(phase.spec, attempts=2)) == [1, 2, 3, 4]


def test_rows_that_a_kill_prevented_are_written_by_the_next_run(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    phase.run()
    phase.save(2)
    phase.log(*LINES[:3])  # and nobody looked
    mirror = phase.run(2)
    assert not mirror.is_score_due
    rows = rows_of(phase.spec, attempts=2)
    assert list(rows) == [1, 2]
    assert rows[2].validation_score is not None
    assert list(weights_of(phase.spec)) == [2]


def test_a_step_that_was_saved_and_not_validated_is_due(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    train(phase, phase.run(), (1,))
    phase.save(2)
    mirror = phase.run(2)
    assert mirror.is_score_due
    assert list(weights_of(phase.spec)) == [2]
    scores = {name: value for name, value in json.loads(LINES[1])["data"].items() if name.startswith("val-")}
    phase.log(json.dumps({"step": 2, "data": scores}).encode() + b"\n")
    mirror.look()
    assert not mirror.is_score_due
    assert [row.validation_score is not None for row in rows_of(phase.spec, attempts=2).values()] == [False, True]


def test_a_phase_that_had_done_everything_is_complete_at_once(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    train(phase, phase.run())
    assert phase.run(2).is_complete
    assert not phase.spec.checkpoints.parent.joinpath("attempts", "2", "metrics.jsonl").exists()


def test_steps_that_are_made_anew_get_their_adapters_anew(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    train(phase, phase.run(), (1, 2))
    before = weights_of(phase.spec)
    (phase.place.state(2) / "data.pt").unlink()
    mirror = phase.run(2)
    phase.save(2, made_up_weights(rows=9))
    phase.log(*LINES[:2])
    mirror.look()
    assert weights_of(phase.spec).keys() == before.keys()
    assert weights_of(phase.spec) != before


def test_an_adapter_that_learns_nothing_is_told(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    mirror = phase.run()
    phase.save(2, {name: tensor * (".lora_A." in name) for name, tensor in made_up_weights().items()})
    phase.log(LINES[1])
    mirror.look()
    assert ["4 tensors of the adapter are zero" in text for text in phase.told] == [True]


def test_what_is_not_finite_stays_visible_and_is_told(tmp_path: Path) -> None:
    phase = Phase(tmp_path)
    mirror = phase.run()
    data = json.loads(LINES[0])["data"] | {"actor/grad_norm": None}
    phase.log(json.dumps({"step": 1, "data": data}).encode() + b"\n")
    mirror.look()
    path = phase.spec.checkpoints.parent / "attempts" / "1" / "metrics.jsonl"
    row = read_series([path]).rows[0]
    assert row.values["grad_norm"] != row.values["grad_norm"]
    assert phase.told == ["alarm: step 1: actor/grad_norm: not a finite number (nan or inf)"]
    assert json.loads(path.read_text())["raw"]["alarm/not_finite"] == 1.0


@pytest.mark.parametrize(
    ("name", "value", "is_alarm"),
    [
        ("rollout_corr/kl", 0.004, False),
        ("rollout_corr/kl", 3.2, True),
        ("training/rollout_probs_diff_mean", 0.01, False),
        ("training/rollout_probs_diff_mean", 0.2, True),
    ],
)
def test_rollouts_of_another_policy_raise_an_alarm(name: str, value: float, is_alarm: bool) -> None:
    assert (f"alarm/{name}" in alarms({name: value})) is is_alarm


def test_only_responses_at_the_limit_were_cut_off() -> None:
    raw = raw_metrics(json.loads(LINES[0])["data"])
    assert canonical_metrics(raw, 1, SHAPE)["response_clip_ratio"] == 1.0
    assert canonical_metrics(raw, 1, replace(SHAPE, response_limit=8))["response_clip_ratio"] == 0.0


def test_a_score_is_the_mean_over_all_rows_and_needs_all_of_their_sources() -> None:
    raw = {"val-core/a/acc/mean@1": 1.0, "val-core/b/c/reward/mean@1": 0.25, "val-aux/a/reward/mean@1": 7.0}
    result = validation_result(raw, {"a": 1, "b/c": 3})
    assert result is not None
    assert (result.score, result.rows) == (pytest.approx(0.4375), 4)
    assert result.subtask_scores == {"a": 1.0, "b/c": 0.25}
    assert validation_result(raw, {"a": 1, "b/c": 3, "d": 1}) is None
    assert validation_result(raw | {"val-core/a/acc/mean@1": float("nan")}, {"a": 1, "b/c": 3}) is None
    assert validation_result({}, {"a": 1}) is None
