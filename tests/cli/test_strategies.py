"""Strategies as results: written, read, trained anew, beside each other, and taken apart."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from command_line import CommandLine, quick

from llmzero_hpc.report.strategy_file import best_static, best_strategy
from llmzero_hpc.store.search_directory import SearchDirectory
from llmzero_hpc.store.strategy_file import encoded, read_strategy

SCHEMAS = Path(__file__).parents[2] / "state" / "schemas"


@pytest.fixture
def strategy(finished: CommandLine, tmp_path: Path) -> Path:
    path = tmp_path / "strategy.yaml"
    path.write_bytes(encoded(best_strategy(SearchDirectory.open(finished.folder / "state" / "done"))))
    return path


def test_a_strategy_file_says_everything_and_is_read_back(finished: CommandLine, strategy: Path) -> None:
    directory = SearchDirectory.open(finished.folder / "state" / "done")
    found = read_strategy(strategy)
    assert found == best_strategy(directory)
    tree = directory.read_tree()
    best = tree.best()
    assert best is not None
    assert found.phases[-1].node == best.id
    assert found.validation_score == best.score == found.phases[-1].validation_score
    assert tree.evaluation is not None
    assert found.test_score == tree.evaluation.score
    assert found.phases[0].resumes is None
    for before, after in zip(found.phases, found.phases[1:], strict=False):
        assert after.resumes == before.last_step
        assert after.diagnosis
        assert set(after.changes) == set(before.configuration.differences(after.configuration))
    assert found.device_hours is not None
    assert found.device_hours > 0


def test_a_strategy_file_is_valid_by_its_schema(strategy: Path) -> None:
    schema = json.loads((SCHEMAS / "strategy.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    document = yaml.safe_load(strategy.read_text(encoding="utf-8"))
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    document["phases"][0]["first_step"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)


def test_the_best_static_phase_is_a_strategy_of_one_phase(finished: CommandLine) -> None:
    static = best_static(SearchDirectory.open(finished.folder / "state" / "done"))
    assert [phase.transition.value for phase in static.phases] == ["scratch"]


@pytest.mark.slow
def test_a_replay_makes_the_same_steps(finished: CommandLine, strategy: Path, tmp_path: Path) -> None:
    said = finished("replay", strategy, "--state", tmp_path / "state", "--name", "again")
    assert said.code == 0
    found = read_strategy(strategy)
    tree = SearchDirectory.open(tmp_path / "state" / "again").read_tree()
    assert [node.total_steps for node in tree] == [phase.steps for phase in found.phases]
    assert tree.evaluation is not None


def test_a_replay_on_another_task_follows_its_rows(command: CommandLine, strategy: Path) -> None:
    rows = read_strategy(strategy).train_rows
    command.write("other.yaml", name="other", rehearsal={"step_seconds": 0, "train_rows": 2 * rows})
    said = command("replay", strategy, "--task", "other.yaml", "--dry-run", "--name", "moved")
    assert said.code == 0
    assert f"{2 * rows} training rows" in said.out
    assert f"node 0: {2 * read_strategy(strategy).phases[0].steps} steps" in said.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format"),
        ({"phases": []}, "phases"),
        ({"more": 1}, "unknown key 'more'"),
        ({"train_rows": 0}, "train_rows: 0 is below 1"),
    ],
)
def test_a_file_that_is_no_strategy(
    command: CommandLine, strategy: Path, change: dict[str, object], message: str
) -> None:
    document = yaml.safe_load(strategy.read_text(encoding="utf-8")) | change
    strategy.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert message in command.refused("replay", strategy).err


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (1, {"first_step": 3}, "each phase begins with the step after"),
        (1, {"configuration": {"lora_rank": 32}}, "phase 2: lora_rank is fixed in a strategy"),
        (0, {"configuration": {"rollouts": 1}}, "phase 1: rollouts: 1 is below 2"),
    ],
)
def test_phases_that_make_no_strategy(
    command: CommandLine, strategy: Path, place: int, change: dict[str, object], message: str
) -> None:
    document = yaml.safe_load(strategy.read_text(encoding="utf-8"))
    phase = document["phases"][place]
    for key, value in change.items():
        phase[key] = phase[key] | value if isinstance(value, dict) else value
    strategy.write_text(yaml.safe_dump(document), encoding="utf-8")
    said = command.refused("replay", strategy)
    assert message in said.err


def test_a_strategy_beside_itself_and_beside_another(finished: CommandLine, strategy: Path, tmp_path: Path) -> None:
    same = finished("diff", strategy, "done")
    assert "are the same strategy" in same.out
    static = tmp_path / "static.yaml"
    static.write_bytes(encoded(best_static(SearchDirectory.open(finished.folder / "state" / "done"))))
    other = finished("diff", strategy, static, "--json")
    found = json.loads(other.out)
    assert found["phases"][-1]["steps"][1] is None
    text = finished("diff", strategy, static)
    assert text.code == 0
    assert "phase 2:" in text.out


def test_strategies_taken_apart(finished: CommandLine, strategy: Path) -> None:
    said = finished("analyze", strategy, "done")
    assert said.code == 0
    count = len(read_strategy(strategy).phases) - 1
    assert f"{2 * count} transitions of 2 strategies" in said.out
    found = json.loads(finished("analyze", "done", "--json").out)
    assert found["summary"]["transitions"] == count
    assert len(found["strategies"][0]["transitions"]) == count


def test_diff_of_what_is_not_there(command: CommandLine) -> None:
    (command.folder / "search.yaml").write_text(yaml.safe_dump(quick()), encoding="utf-8")
    assert command.refused("diff", "none.yaml", "none").code == 3
    assert command.refused("analyze", "none").code == 4
