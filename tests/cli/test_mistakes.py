"""Whatever a user gets wrong is told in one line, with what to do next, and an exit code of its kind."""

from __future__ import annotations

import errno
import json
import shutil
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from command_line import CommandLine, quick

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS: list[tuple[dict[str, Any], str, str]] = [
    ({"budgett": 1}, "unknown key 'budgett'", "did you mean 'budget'?"),
    ({"budget": {"itterations": 1}}, "unknown key 'budget.itterations'", "did you mean 'iterations'?"),
    ({"rules": {"explorration": 1}}, "unknown key 'rules.explorration'", "did you mean 'exploration'?"),
    ({"bounds": {"rollouts": {"hi": 8}}}, "unknown key 'bounds.rollouts.hi'", "did you mean 'high'?"),
    ({"task": {"name": "files", "trian": "x"}}, "unknown key 'task.trian'", "did you mean 'train'?"),
    (
        {"budget": {"zzz": 1}},
        "unknown key 'budget.zzz'",
        "known: iterations, device_hours, strategy_device_hours, includes_test, deadline_hours",
    ),
    ({"budget": {"iterations": "many"}}, "budget.iterations: expected a whole number, found 'many'", "search-yaml.md"),
    ({"budget": {"iterations": 1.5}}, "budget.iterations: expected a whole number, found 1.5", "search-yaml.md"),
    ({"budget": {"iterations": 0}}, "budget.iterations: 0 is below 1", "search-yaml.md"),
    ({"budget": 5}, "budget: expected keys with values, found 5", "search-yaml.md"),
    ({"budget": None}, "budget: expected keys with values, found nothing", "search-yaml.md"),
    ({"seed": 2**31}, "seed: 2147483648 is not below 2147483648", "search-yaml.md"),
    ({"live_views": "maybe"}, "live_views: expected true or false, found 'maybe'", "search-yaml.md"),
    ({"model": 3}, "model: expected text, found 3", "search-yaml.md"),
    ({"tick_seconds": float("nan")}, "tick_seconds: expected a number, found nan", "search-yaml.md"),
    ({"tick_seconds": float("inf")}, "tick_seconds: expected a number, found inf", "search-yaml.md"),
    ({"name": "My Search"}, "name: 'My Search' is no name", "a name has a-z, 0-9, - and _"),
    ({"name": "../up"}, "name: '../up' is no name", "a name has a-z, 0-9, - and _"),
    ({"task": {"name": "chain"}}, "task.name: 'chain' is unknown", "did you mean 'chains'?"),
    ({"task": {}}, "task.name is missing", "search-yaml.md"),
    ({"task": {"name": "files"}}, "task.train is missing", "search-yaml.md"),
    ({"trainer": "verll"}, "trainer: 'verll' is unknown", "did you mean 'verl'?"),
    ({"hardware": {"deepspeed_stage": 1}}, "hardware.deepspeed_stage: 1 is unknown", "known: 0, 2, 3"),
    ({"rules": {"exploration": -1}}, "rules: exploration must be a number of at least 0", "search-yaml.md"),
    ({"configuration": {"learning_rte": 1}}, "configuration.learning_rte is no hyperparameter", "'learning_rate'?"),
    ({"configuration": {"learning_rate": 1.0}}, "configuration.learning_rate: 1 is above 0.1", "hyperparameters.md"),
    ({"configuration": {"learning_rate": float("nan")}}, "configuration.learning_rate: expected a number", ""),
    ({"configuration": {"rollouts": "x"}}, "configuration.rollouts: expected a whole number, found 'x'", ""),
    (
        {"configuration": {"batch_size": 10, "mini_batches": 3}},
        "configuration.mini_batches: 3 does not divide batch_size 10",
        "hyperparameters.md",
    ),
    ({"configuration": {"overrides": {"a": [1]}}}, "configuration.overrides.a: expected a number, text", ""),
    ({"configuration": {"overrides": {"a": 1}}}, "overrides.a: the rehearsal trainer has no further keys", ""),
    ({"bounds": {"rollout": {"low": 2}}}, "bounds.rollout is no hyperparameter", "did you mean 'rollouts'?"),
    ({"bounds": {"target_modules": {"low": 2}}}, "bounds.target_modules: target_modules is no number", "remove it"),
    ({"bounds": {"rollouts": {"low": 9, "high": 8}}}, "bounds.rollouts: low 9 is above high 8", ""),
    ({"bounds": {"rollouts": {"low": float("nan")}}}, "bounds.rollouts.low: expected a number, found nan", ""),
    ({"bounds": {"rollouts": {"high": 4}}}, "configuration.rollouts: 8 is above 4", "see bounds.rollouts"),
    ({"bounds": {"rollouts": 4}}, "bounds.rollouts: expected keys with values, found 4", "search-yaml.md"),
]

TEXTS: list[tuple[bytes, str]] = [
    (b"", "search.yaml is empty"),
    (b"# only a comment\n", "search.yaml is empty"),
    (b"- 1\n", "search.yaml holds no settings"),
    (b"words", "search.yaml holds no settings"),
    (b"a: [", "search.yaml line 1, column 5: not valid YAML"),
    (b"name: x\n\tseed: 1", "search.yaml line 2, column 1: not valid YAML"),
    (b"name: x\nname: y\n", "search.yaml line 2, column 1: not valid YAML: 'name' stands twice"),
    (b"name: !!python/object:os.system {}", "search.yaml line 1, column 7: not valid YAML"),
    (b"name: \xff\xfe", "search.yaml is not UTF-8 text"),
    (b"\x00", "search.yaml: not valid YAML"),
    (b"model: x\ntask: {name: chains}\n", "search.yaml: name is missing"),
]


@pytest.mark.parametrize(("settings", "message", "advice"), SETTINGS, ids=lambda value: str(value)[:40])
def test_settings(settings: dict[str, Any], message: str, advice: str, command: CommandLine) -> None:
    command.write(**settings)
    said = command.refused("run", "search.yaml")
    assert said.code == 3
    first, _, second = said.err.partition("\n")
    assert message in first
    assert advice in second
    assert not (command.folder / "state").exists()


@pytest.mark.parametrize(("content", "message"), TEXTS)
def test_files_that_are_no_settings(content: bytes, message: str, command: CommandLine) -> None:
    (command.folder / "search.yaml").write_bytes(content)
    said = command.refused("run", "search.yaml")
    assert said.code == 3
    assert message in said.err


def test_a_missing_or_wrong_file(command: CommandLine) -> None:
    assert "nowhere.yaml is not there" in command.refused("run", "nowhere.yaml").err
    (command.folder / "folder.yaml").mkdir()
    said = command.refused("run", "folder.yaml")
    assert said.code == 3
    assert "folder.yaml is a folder, not a file" in said.err


def test_a_byte_order_mark_is_no_mistake(command: CommandLine) -> None:
    path = command.write()
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert command("run", path, "--dry-run").code == 0


GOOD_REWARD = "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n    return 1.0\n"
DATA: list[tuple[dict[str, str | None], str]] = [
    ({"reward.py": None}, "reward.py: the reward file is not there"),
    ({"reward.py": "import nowhere_at_all\n"}, "reward.py line 1: the reward file does not import"),
    ({"reward.py": "def compute_score(:\n"}, "reward.py line 1: the reward file does not import: SyntaxError"),
    ({"reward.py": "x = 1\n"}, "reward.py: there is no function 'compute_score'"),
    (
        {"reward.py": GOOD_REWARD.replace("return 1.0", "return 1 / 0")},
        "reward.py line 2: compute_score raised ZeroDivisionError",
    ),
    ({"reward.py": GOOD_REWARD.replace("1.0", "'good'")}, "reward.py: compute_score returned 'good' (str)"),
    ({"reward.py": GOOD_REWARD.replace("1.0", "float('nan')")}, "reward.py: compute_score returned nan"),
    ({"train.jsonl": None}, "train.jsonl: the file is not there"),
    ({"validation.jsonl": ""}, "validation.jsonl: the file holds no rows"),
    ({"train.jsonl": '{"prompt": "x"}\n'}, "train.jsonl line 1: answer is missing"),
    ({"train.jsonl": "not json\n"}, "train.jsonl line 1: not JSON"),
]


@pytest.mark.parametrize(("files", "message"), DATA, ids=[message[:60] for _, message in DATA])
def test_data_and_reward(files: dict[str, str | None], message: str, command: CommandLine) -> None:
    row = '{"prompt": "1 + 1 =", "answer": "2"}\n'
    all_files = {"reward.py": GOOD_REWARD, "train.jsonl": row * 4, "validation.jsonl": row} | files
    for name, text in all_files.items():
        if text is not None:
            (command.folder / name).write_text(text, encoding="utf-8")
    command.write(
        trainer="trl",
        model="model",
        configuration={"batch_size": 2, "rollouts": 2, "max_response_length": 8},
        hardware={"device": "cpu"},
        task={"name": "files", "train": "train.jsonl", "validation": "validation.jsonl", "reward": "reward.py"},
    )
    tiny_model(command.folder / "model")
    said = command.refused("run", "search.yaml", "--dry-run")
    assert said.code == 3
    assert message in said.err


def tiny_model(folder: Path) -> None:
    """What the trainer looks at before it starts: the tokenizer and the model's shape."""
    from transformers import LlamaConfig

    from llmzero_hpc.tasks.chains.tokenizer import make_tokenizer

    make_tokenizer().save_pretrained(folder)
    (folder / "model.safetensors").touch()
    LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    ).save_pretrained(folder)


def test_a_model_that_is_not_there(command: CommandLine) -> None:
    command.write(trainer="trl", model="some/model")
    said = command.refused("run", "search.yaml")
    assert said.code == 3
    assert f"model: there is no folder {command.folder / 'some' / 'model'}" in said.err
    command.write(trainer="trl", model="builtin:gpt")
    assert "model: 'builtin:gpt' is unknown" in command.refused("run", "search.yaml").err


def test_a_package_that_is_not_installed(command: CommandLine) -> None:
    command.write(trainer="trl", model="some/model")
    # the check looks from a process of its own, where nothing is patched
    here = mock.patch("llmzero_hpc.controller.apart.apart", lambda call, *given, progress=None: call(*given))
    with mock.patch("importlib.util.find_spec", return_value=None), here:
        said = command.refused("run", "search.yaml")
    assert said.code == 9
    assert "pip install 'llmzero-hpc[local]'" in said.err


@pytest.fixture
def damaged(finished: CommandLine, command: CommandLine) -> CommandLine:
    """A copy of the finished search, to be damaged."""
    shutil.copytree(finished.folder / "state", command.folder / "state")
    return command


@pytest.mark.parametrize("name", ["search.json", "tree.json"])
@pytest.mark.parametrize("look", [("status",), ("run", "done"), ("tick",), ("report",), ("cancel", "1")])
def test_a_newer_format_is_refused(name: str, look: tuple[str, ...], damaged: CommandLine) -> None:
    path = damaged.folder / "state" / "done" / name
    content = json.loads(path.read_bytes()) | {"format_version": 99}
    path.write_text(json.dumps(content), encoding="utf-8")
    said = damaged.refused(*look)
    assert said.code == 6
    assert f"{name} has format version 99" in said.err
    assert json.loads(path.read_bytes()) == content


@pytest.mark.parametrize("name", ["search.json", "tree.json"])
@pytest.mark.parametrize("content", ["torn", "edited", "empty"])
def test_a_damaged_state_is_refused(name: str, content: str, damaged: CommandLine) -> None:
    path = damaged.folder / "state" / "done" / name
    data = path.read_bytes()
    path.write_bytes(
        {
            "torn": data[: len(data) // 2],
            "edited": data.replace(b'"token"', b'"tokem"').replace(b'"nodes"', b'"nodez"'),
            "empty": b"",
        }[content]
    )
    for look in (("status",), ("run", "done"), ("show", "1")):
        said = damaged.refused(*look)
        assert said.code == 7
        assert str(path) in said.err


def test_names_of_searches(damaged: CommandLine) -> None:
    assert "did you mean 'done'?" in damaged.refused("status", "doen").err
    said = damaged.refused("status", "nowhere-near")
    assert said.code == 4
    assert "there is no search 'nowhere-near' in state" in said.err
    assert "known: done" in said.err
    shutil.copytree(damaged.folder / "state" / "done", damaged.folder / "state" / "other")
    said = damaged.refused("status")
    assert said.code == 4
    assert "say which one you mean: done, other" in said.err
    assert damaged("status", "other").code == 0
    assert damaged("status", damaged.folder / "state" / "other").code == 0


def test_folders_that_hold_no_search(command: CommandLine) -> None:
    assert "state holds no search" in command.refused("status").err
    command.write()
    (command.folder / "plain").mkdir()
    assert "holds no search" in command.refused("status", "plain").err
    said = command.refused("run", ".")
    assert said.code == 4
    assert "start it: `llmzero-hpc run search.yaml`" in said.err
    said = command.refused("status", "--state", "search.yaml")
    assert said.code == 4
    assert "search.yaml is a file, not a folder" in said.err
    said = command.refused("run", "search.yaml", "--state", "search.yaml")
    assert said.code == 8
    assert "search.yaml" in said.err
    assert command.refused("status", "x" * 300).code == 8


@pytest.mark.parametrize("look", ["show", "logs", "cancel"])
def test_a_node_that_is_not_there(look: str, finished: CommandLine) -> None:
    said = finished.refused(look, "99")
    assert said.code == 4
    assert "there is no node 99; done has nodes 0 to 3" in said.err


def test_other_settings_under_a_name_that_is_taken(finished: CommandLine) -> None:
    path = finished.write("other.yaml", **(quick(name="done", seed=5)))
    said = finished.refused("run", path)
    assert said.code == 3
    assert "other settings (seed)" in said.err
    assert "another `name`" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("statsu",), "No such command 'statsu'"),
        (("status", "--jason"), "No such option"),
        (("show",), "Missing argument 'N'"),
        (("show", "one"), "Invalid value for 'N'"),
        (("run", "x", "--dry-run"), "--dry-run needs a search.yaml"),
        (("run", "search.yaml", "--json"), "--json goes with --dry-run"),
        (("demo", "--name", "../up"), "'../up' is no name of a search"),
        (("demo", "--iterations", "0"), "Invalid value for '--iterations'"),
    ],
)
def test_command_lines_that_mean_nothing(arguments: tuple[str, ...], message: str, command: CommandLine) -> None:
    said = command(*arguments)
    assert said.code == 2
    lines = said.err.splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1].endswith("--help` shows its usage")
    assert len(lines) == 2


def test_init_with_options_that_exclude_each_other(command: CommandLine) -> None:
    assert command.refused("init", "--own-data", "--rehearsal").code == 3
    (command.folder / "file").touch()
    assert "file is a file, not a folder" in command.refused("init", "file").err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ENAMETOOLONG])
def test_what_the_system_refuses_anywhere_is_no_traceback(code: int, finished: CommandLine) -> None:
    refusal = OSError(code, "refused", "some/file")
    with mock.patch("llmzero_hpc.report.reading.read", side_effect=refusal):
        said = finished.refused("status")
    assert said.code == 8
    assert "some/file" in said.err


def test_a_policy_cache_that_cannot_be_written(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    (command.folder / "file").touch()
    monkeypatch.setenv("LLMZERO_CACHE", str(command.folder / "file"))
    command.write(trainer="trl")
    said = command.refused("run", "search.yaml")
    assert said.code == 8
