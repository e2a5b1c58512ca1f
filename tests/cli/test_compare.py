"""Comparisons from the command line: killed and gone on with, shown, kept; and what is refused before any compute."""

from __future__ import annotations

import json
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from command_line import CommandLine, quick, started, wait_for

from llmzero_hpc.controller.comparison import members, read_plan
from llmzero_hpc.search.strategy import path as search_path
from llmzero_hpc.sections import LanguageModelAgents, PlaybookAgents
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from pathlib import Path

RANGES = {"learning_rate": {"low": 1e-4, "high": 3e-3, "log": True}}


def plan(folder: Path, **changes: Any) -> Path:
    """A compare.yaml beside its search.yaml."""
    search = quick(name="base", bounds={"max_response_length": {"high": 8192}}, configuration={"batch_size": 64})
    (folder / "search.yaml").write_text(yaml.safe_dump(search), encoding="utf-8")
    settings = {
        "name": "race",
        "search": "search.yaml",
        "methods": {"tree": "llmzero", "random": {"kind": "random", "ranges": RANGES}},
        "seeds": [0, 1],
        "budget": {"iterations": 2},
        "reference": "tree",
        "at_once": 2,
    }
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump(settings | changes), encoding="utf-8")
    return path


def tree_of(folder: Path) -> int:
    """Phases of a search that may not be there yet."""
    return len(SearchDirectory.open(folder).read_tree()) if (folder / "search.json").exists() else 0


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on_and_is_shown(command: CommandLine) -> None:
    path = plan(command.folder)
    race = command.folder / "state" / "race"
    with started("compare", path, folder=command.folder) as process:
        wait_for(lambda: tree_of(race / "tree-s0") > 0, "the first search has begun")
        process.send_signal(signal.SIGKILL)
        process.wait()
    so_far = command("compare", path, "--look")
    assert so_far.code == 0
    assert "provisional" in so_far.out

    said = command("compare", path)
    assert said.code == 0
    assert "SIMULATED" in said.out
    assert "tree - random, test:" in said.out
    kept = json.loads((race / "comparison.json").read_text(encoding="utf-8"))
    assert kept["is_over"]
    text = (race / "results.md").read_text(encoding="utf-8")
    assert "SIMULATED" in text
    assert "| tree | adaptive |" in text
    assert kept["simulated"]
    assert {(run["method"], run["seed"]) for run in kept["runs"]} == {
        (method, seed) for method in ("tree", "random") for seed in (0, 1)
    }
    for run in kept["runs"]:
        assert run["phases"] == 2
        assert run["test"] is not None
        assert run["cost"] > 0
        assert run["curve"][-1]["score"] == run["validation"]
    assert {row["method"]: row["is_static"] for row in kept["methods"]} == {"tree": False, "random": True}
    assert all((race / f"comparison.{kind}").stat().st_size for kind in ("svg", "png"))

    again = command("compare", path, "--json")
    assert json.loads(again.out)["runs"] == kept["runs"], "what is over is not run again"


@pytest.mark.slow
def test_the_best_strategy_of_each_method_is_trained_anew_on_fresh_seeds(command: CommandLine) -> None:
    path = plan(command.folder, fresh_seeds=[7, 8])
    race = command.folder / "state" / "race"
    winners = race / "winners"
    with started("compare", path, folder=command.folder) as process:
        wait_for(lambda: tree_of(winners / "tree-s7") > 0, "the first winner is trained anew")
        process.send_signal(signal.SIGKILL)
        process.wait()
    said = command("compare", path)
    assert said.code == 0
    assert "Each method's best strategy, trained anew on fresh seeds:" in said.out
    kept = {part: json.loads((part / "comparison.json").read_text()) for part in (race, winners)}
    assert {(run["method"], run["seed"]) for run in kept[winners]["runs"]} == {
        (method, seed) for method in ("tree", "random") for seed in (7, 8)
    }
    for method in ("tree", "random"):
        seed = max((run["validation"], -run["seed"]) for run in kept[race]["runs"] if run["method"] == method)[1]
        found = SearchDirectory.open(race / f"{method}-s{-seed}").read_tree()
        best = found.best()
        assert best is not None
        assert best.best is not None
        strategy = search_path(found, best.id, best.best.step)
        again = SearchDirectory.open(winners / f"{method}-s7").read_tree()
        assert [node.total_steps for node in again] == [part.last_step - part.first_step + 1 for part in strategy]
        assert [node.configuration and node.configuration.learning_rate for node in again] == [
            part.node.configuration and part.node.configuration.learning_rate for part in strategy
        ]
    looked = command("compare", path, "--look", "--json")
    assert json.loads(looked.out) == {**kept[race], "winners": kept[winners]}
    assert "seed" in (winners / "results.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_confirmation_that_is_killed_goes_on(finished: CommandLine, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(finished.folder / "state" / "done", state / "done")
    arguments = ("confirm", "done", "--seeds", "2", "--state", state)
    with started(*arguments, folder=tmp_path) as process:
        wait_for(lambda: tree_of(state / "done-confirmed" / "strategy-s1") > 1, "the first strategy is being trained")
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = SearchDirectory.open(state / "done-confirmed" / "strategy-s1").read_tree()
    so_far = finished(*arguments, "--look")
    assert "provisional" in so_far.out
    said = finished(*arguments)
    assert said.code == 0
    after = SearchDirectory.open(state / "done-confirmed" / "strategy-s1").read_tree()
    # the kill may have come between planning a phase and giving it its configuration
    assert all(one.configuration in (None, two.configuration) for one, two in zip(before, after, strict=False))
    assert any(one.configuration is not None for one in before)
    assert all(len(node.attempts) <= 2 and node.score is not None for node in after)
    text = (state / "done-confirmed" / "results.md").read_text(encoding="utf-8")
    assert "| strategy | adaptive |" in text
    assert "| static | static |" in text


@pytest.mark.slow
def test_the_winner_and_the_best_static_configuration_on_fresh_seeds(finished: CommandLine, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(finished.folder / "state" / "done", state / "done")
    said = finished("confirm", "done", "--seeds", "1", "--state", state, "--at-once", "2", "--json")
    assert said.code == 0
    runs = {run["method"]: run for run in json.loads(said.out)["runs"]}
    assert set(runs) == {"strategy", "static"}
    assert {run["seed"] for run in runs.values()} == {1}
    assert (runs["strategy"]["is_static"], runs["static"]["is_static"]) == (False, True)
    strategy = SearchDirectory.open(state / "done-confirmed" / "strategy-s1").read_tree()
    static = SearchDirectory.open(state / "done-confirmed" / "static-s1").read_tree()
    assert len(strategy) > 1
    assert len(static) == 1
    original = SearchDirectory.open(state / "done").read_tree()[0]
    assert static[0].total_steps is not None
    assert original.total_steps is not None
    assert static[0].total_steps > original.total_steps, "it gets the compute of the whole strategy"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"tree": "llmzro"}}, "'llmzro' is unknown"),
        ({"methods": []}, "methods"),
        ({"seeds": [1, 1]}, "seeds: one stands twice"),
        ({"fresh_seeds": [7, 7]}, "fresh_seeds: one stands twice"),
        ({"fresh_seeds": [1, 7]}, "fresh_seeds: 1 is not fresh"),
        ({"seeds": []}, "seeds"),
        ({"budget": {}}, "budget.device_hours is missing"),
        ({"reference": "grid"}, "reference: 'grid' is no method here"),
        ({"search": "none.yaml"}, "none.yaml is not there"),
        ({"more": 1}, "unknown key 'more'"),
        ({"changes": {"treee": {}}}, "changes: 'treee' is no method here"),
        ({"changes": {"tree": {"task": {}}}}, "changes.tree"),
        ({"changes": {"tree": {"rules": {"sinle_stage": True}}}}, "changes.tree: unknown key 'rules.sinle_stage'"),
        ({"changes": {"tree": {"agents": {"vision": False}}}}, "changes.tree: unknown key 'agents.vision'"),
        ({"changes": {"tree": {"max_parallel_phases": 999}}}, "max_parallel_phases: 999 is above 256"),
    ],
)
def test_mistakes_in_a_comparison(command: CommandLine, changes: dict[str, Any], message: str) -> None:
    assert message in command.refused("compare", plan(command.folder, **changes)).err


def test_one_method_may_ask_a_model_where_the_others_have_rules(command: CommandLine) -> None:
    agents = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "prompts": "own"}
    path = plan(
        command.folder,
        methods={"tree": "llmzero", "skills": "skill_agent"},
        changes={"skills": {"agents": agents, "early_stop": {"interval_seconds": 300}}},
    )
    found = {one.method: one for one in members(read_plan(path))}
    assert found["tree"].config.agents == PlaybookAgents()
    asked = found["skills"].config.agents
    assert isinstance(asked, LanguageModelAgents)
    assert (asked.model, asked.prompts) == ("m", command.folder / "own")
    judged = found["skills"].config.early_stop
    assert (judged.interval_seconds, judged.first_step) == (300, found["tree"].config.early_stop.first_step)
    assert not found["skills"].is_static
    assert found["skills"].changes.startswith("early_stop.interval_seconds: 300, agents.base_url")


def test_scores_that_cannot_be_compared_are_refused(command: CommandLine) -> None:
    path = plan(command.folder)
    command.write()
    said = command.refused("compare", path)
    assert "bounds.max_response_length.high is missing" in said.err


def test_nothing_is_shown_of_a_comparison_that_was_not_begun(command: CommandLine) -> None:
    assert command.refused("compare", plan(command.folder), "--look").code == 4


def test_a_static_winner_is_nothing_to_confirm(command: CommandLine) -> None:
    command.write(name="once", method="practitioner")
    assert command("run", "search.yaml").code == 0
    assert "is a single phase" in command.refused("confirm", "once").err
