"""Baselines on the very tick: what they train, that a kill changes nothing, and what is refused before it begins."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rehearsed_world import RANGES, Rehearsed, settings

from llmzero_hpc.baselines import optimizers
from llmzero_hpc.baselines.registry import check_method, first_proposal, with_strategy
from llmzero_hpc.config import SearchConfig, load_text
from llmzero_hpc.errors import ConfigurationError, MissingDependencyError
from llmzero_hpc.method_sections import TransferMethod
from llmzero_hpc.report.strategy_file import best_strategy
from llmzero_hpc.search.node import NodeStatus, TransitionKind
from llmzero_hpc.store.strategy_file import encoded

if TYPE_CHECKING:
    from pathlib import Path

    from llmzero_hpc.search.tree import Tree

EVERY_METHOD: dict[str, Any] = {
    "practitioner": "practitioner",
    "random": {"kind": "random", "ranges": RANGES},
    "grid": {"kind": "grid", "values": {"learning_rate": [5e-4, 1e-3], "lora_rank": [8, 16]}, "changes": {}},
    "guidebook": "guidebook",
    "tpe": {"kind": "tpe", "ranges": RANGES, "startup_trials": 2},
    "asha": {"kind": "asha", "ranges": RANGES, "reduction": 2},
    "pbt": {"kind": "pbt", "ranges": RANGES, "population": 2},
    "llmzero": "llmzero",
}


def what_was_trained(tree: Tree) -> list[tuple[object, ...]]:
    return [(one.kind, one.parent, one.configuration, one.resume, one.checkpoints, one.status) for one in tree]


def rates(tree: Tree) -> list[float]:
    return [node.configuration.learning_rate for node in tree if node.configuration is not None]


@pytest.mark.parametrize("kind", EVERY_METHOD)
def test_a_method_is_the_same_search_however_often_it_is_killed(kind: str, tmp_path: Path) -> None:
    config = settings(EVERY_METHOD[kind], budget={"iterations": 5})
    whole = Rehearsed(tmp_path / "whole", config).search()
    killed = Rehearsed(tmp_path / "killed", config)
    for number in range(300):
        if killed.tick().finished:
            break
        if number % 3:
            killed.restart()
        for job in killed.live():
            killed.work_off(job)
        killed.carry_out_cancellations()
    assert what_was_trained(killed.tree) == what_was_trained(whole)
    assert whole.evaluation is not None
    assert whole.evaluation.score is not None
    assert killed.tree.evaluation is not None
    assert killed.tree.evaluation.score == whole.evaluation.score


def test_the_practitioner_trains_once(tmp_path: Path) -> None:
    config = settings("practitioner")
    tree = Rehearsed(tmp_path / "s", config).search()
    assert [node.configuration for node in tree] == [config.configuration]
    longer = Rehearsed(tmp_path / "t", settings({"kind": "practitioner", "epochs": 3.5})).search()
    assert [node.configuration for node in longer] == [config.configuration.changed(epochs=3.5)]


def test_random_trials_stay_in_their_ranges_and_differ(tmp_path: Path) -> None:
    tree = Rehearsed(tmp_path / "s", settings(EVERY_METHOD["random"], budget={"iterations": 6})).search()
    assert len(set(rates(tree))) == 6
    for node in tree:
        assert node.kind is TransitionKind.SCRATCH
        found = node.configuration
        assert found is not None
        assert 1e-4 <= found.learning_rate <= 3e-3
        assert found.rollouts in {6, 8}
        assert found.lora_alpha == 2 * found.lora_rank, "the adapter's scale is that of the configuration"


def test_seeds_differ_in_random_search() -> None:
    firsts = {first_proposal(settings(EVERY_METHOD["random"]), seed).configuration.learning_rate for seed in range(4)}
    assert len(firsts) == 4


def test_the_grid_of_the_paper() -> None:
    start = {"batch_size": 128, "learning_rate": 2e-5}
    config = settings("grid", configuration=start, bounds={})
    assert config.growth == settings({"kind": "grid"}).growth
    first = first_proposal(config, 0).configuration
    assert (first.learning_rate, first.lora_rank, first.epochs, first.max_response_length) == (1e-5, 64, 5.0, 8192)
    assert first.batch_size == 128


def test_the_grid_is_swept_whole_and_once(tmp_path: Path) -> None:
    tree = Rehearsed(tmp_path / "s", settings(EVERY_METHOD["grid"], max_parallel_phases=3)).search()
    points = [(node.configuration.learning_rate, node.configuration.lora_rank) for node in tree if node.configuration]
    assert points == [(5e-4, 8), (5e-4, 16), (1e-3, 8), (1e-3, 16)]


def test_the_guidebook_grows_capacity_alone(tmp_path: Path) -> None:
    tree = Rehearsed(tmp_path / "s", settings("guidebook")).search()
    assert [node.resume.node if node.resume else None for node in tree] == [None, 0, 1]
    for before, after in zip(tree.nodes, tree.nodes[1:], strict=False):
        assert before.configuration is not None
        assert after.configuration is not None
        moved = before.configuration.differences(after.configuration)
        assert set(moved) == {"max_response_length", "rollouts"}
        assert after.resume is not None
        assert after.resume.step == before.checkpoints[-1].step


def test_a_strategy_is_trained_anew_step_by_step(tmp_path: Path) -> None:
    found = Rehearsed(tmp_path / "found", settings("llmzero", budget={"iterations": 6}))
    found.search()
    strategy = best_strategy(found.directory)
    assert len(strategy.phases) > 1
    (tmp_path / "strategy.yaml").write_bytes(encoded(strategy))
    again = Rehearsed(
        tmp_path / "again", settings({"kind": "transfer", "strategy": str(tmp_path / "strategy.yaml")})
    ).search()
    assert [node.total_steps for node in again] == [phase.steps for phase in strategy.phases]
    for node, phase in zip(again, strategy.phases, strict=True):
        assert node.configuration is not None
        assert set(phase.configuration.differences(node.configuration)) <= {"epochs"}


def test_a_phase_that_ended_early_is_trained_anew_as_short_as_it_was(tmp_path: Path) -> None:
    """No phase may be planned as short, which is what bounds say."""
    config = settings("practitioner", bounds={"epochs": {"low": 0.5, "high": 4}}, budget={"iterations": 2})
    start = config.configuration
    method = TransferMethod(kind="transfer", phases=(start.changed(epochs=0.25), start.changed(epochs=0.125)))
    short = config.model_copy(update={"method": method})
    check_method(with_strategy(short))
    tree = Rehearsed(tmp_path / "s", short).search()
    assert [node.status for node in tree] == [NodeStatus.COMPLETED] * 2
    assert [node.configuration.epochs for node in tree if node.configuration] == [0.25, 0.125]
    method = TransferMethod(kind="transfer", phases=(start.changed(epochs=9),))
    too_long = with_strategy(config.model_copy(update={"method": method}))
    with pytest.raises(ConfigurationError, match=r"phase 1 of the strategy cannot be trained: epochs: 9 is above 4"):
        check_method(too_long)


def test_tpe_learns_where_the_good_ones_are(tmp_path: Path) -> None:
    """The best learning rates of the rehearsal lie at the upper end: after its start TPE goes there."""
    ranges = {"learning_rate": {"low": 1e-5, "high": 2e-3, "log": True}}
    method = {"kind": "tpe", "ranges": ranges, "startup_trials": 4}
    tree = Rehearsed(tmp_path / "s", settings(method, budget={"iterations": 16})).search()
    start, later = rates(tree)[:4], rates(tree)[8:]
    assert sum(map(math.log, later)) / len(later) > sum(map(math.log, start)) / len(start)


def test_asha_stops_the_worse_at_a_rung_and_keeps_the_best(tmp_path: Path) -> None:
    ranges = {"learning_rate": {"low": 1e-5, "high": 2e-3, "log": True}}
    config = settings({"kind": "asha", "ranges": ranges, "reduction": 2}, budget={"iterations": 8})
    tree = Rehearsed(tmp_path / "s", config).search()
    stopped = [node for node in tree if node.status is NodeStatus.EARLY_STOPPED]
    best = tree.best()
    assert 2 <= len(stopped) < len(tree)
    assert best is not None
    assert best.status is NodeStatus.COMPLETED
    for node in stopped:
        assert node.stop is not None
        assert len(node.checkpoints) in {1, 2, 4}, "rungs are at 1, 2 and 4 validations"
        assert "validations" in node.stop.reason


def test_a_population_inherits_checkpoints_and_perturbs_copies(tmp_path: Path) -> None:
    tree = Rehearsed(tmp_path / "s", settings(EVERY_METHOD["pbt"], budget={"iterations": 6})).search()
    second = [node for node in tree if node.resume is not None and tree[node.resume.node].resume is None]
    assert len(second) == 2
    goes_on, copy = second
    parent = tree[goes_on.parent or 0].configuration
    assert goes_on.configuration == parent
    assert copy.parent == goes_on.parent, "of two members the worse is replaced by a copy of the better"
    assert copy.configuration is not None
    assert parent is not None
    moved = parent.differences(copy.configuration)
    assert "learning_rate" in moved
    assert not parent.fixed_changes(copy.configuration)
    assert copy.configuration.learning_rate / parent.learning_rate in [pytest.approx(0.8), pytest.approx(1.2)]


def test_a_failed_trial_is_a_result_and_not_repaired(tmp_path: Path) -> None:
    config = settings(
        EVERY_METHOD["random"],
        rehearsal={"step_seconds": 0, "failure_rate": 1, "train_rows": 64},
        budget={"iterations": 3},
    )
    tree = Rehearsed(tmp_path / "s", config).search()
    assert [node.status for node in tree] == [NodeStatus.FAILED] * 3
    assert {node.kind for node in tree} == {TransitionKind.SCRATCH}


def test_a_sample_respects_the_bounds() -> None:
    narrow = settings(EVERY_METHOD["random"], bounds={"learning_rate": {"low": 1e-3, "high": 2e-3}})
    for seed in range(20):
        assert 1e-3 <= first_proposal(narrow, seed).configuration.learning_rate <= 2e-3


START = "name: s\ntrainer: rehearsal\nmodel: none\ntask: {name: chains}\n"


def refused(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        check_method(load_text(START + text, "search.yaml"))
    return caught.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: randm", "method.kind: 'randm' is unknown"),
        ("method: {kind: random, trials: 0}", "method.trials: 0 is below 1"),
        ("method: {kind: random, ranges: {learning_rte: [1e-5]}}", "method.ranges.learning_rte is no hyperparameter"),
        ("method: {kind: random, ranges: {rollouts: {low: 4, high: 2}}}", "method.ranges.rollouts: 4 to 2 is no range"),
        ("method: {kind: random, ranges: {rollouts: [many]}}", "method.ranges.rollouts: 'many' is not of type int"),
        ("method: {kind: random, ranges: {kl_coefficient: {low: 0, high: 1, log: true}}}", "low must be above 0"),
        ("method: {kind: random, ranges: {target_modules: {low: 0, high: 1}}}", "is no number"),
        ("method: {kind: guidebook, rollouts: [1, 2]}", "method.lengths has 3 phases and method.rollouts 2"),
        ("method: transfer", "method.strategy is missing"),
        ("method: {kind: llmzero, tree: false}\nrules: {single_stage: true}", "method.tree: false continues phases"),
        ("method: guidebook\nbounds: {max_response_length: {high: 7000}}", "phase 2 of the strategy cannot be trained"),
        ("method: grid\nbounds: {max_response_length: {high: 7000}}", "a combination of the grid cannot be trained"),
        (
            "method: random\nbounds: {learning_rate: {high: 1e-3, low: 2e-4}}\nconfiguration: {learning_rate: 5e-4}",
            "method.ranges.learning_rate lies outside of bounds.learning_rate",
        ),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(text: str, message: str) -> None:
    assert message in refused(text).message


def test_numbers_of_yaml_are_numbers() -> None:
    text = "method: {kind: grid, values: {learning_rate: [1e-5]}}"
    config = load_text(START + text, "search.yaml")
    assert first_proposal(config, 0).configuration.learning_rate == 1e-5


def test_the_defaults_are_the_paper_s() -> None:
    """Appendix B.2, word for word."""
    ranges = settings("random").method.model_dump()["ranges"]
    assert ranges == {
        "learning_rate": {"low": 1e-5, "high": 1e-4, "log": True},
        "kl_coefficient": {"low": 1e-5, "high": 1e-3, "log": True},
        "temperature": {"low": 0.6, "high": 1.2, "log": False},
        "clip_range": {"low": 0.15, "high": 0.35, "log": False},
        "batch_size": (64, 128, 256),
        "lora_rank": (16, 32, 64, 128),
        "rollouts": (6, 8, 12),
        "epochs": (3.0, 5.0),
    }


@pytest.mark.parametrize("kind", EVERY_METHOD)
def test_settings_survive_their_file(kind: str) -> None:
    config = settings(EVERY_METHOD[kind])
    assert SearchConfig.model_validate_json(config.model_dump_json(), strict=True) == config


@pytest.mark.parametrize("kind", ["tpe", "asha"])
def test_optuna_is_asked_for_where_it_is_needed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match="Optuna"):
        check_method(settings(EVERY_METHOD[kind]))


def test_without_a_strategy_file_there_is_no_transfer(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there"):
        Rehearsed(tmp_path / "s", settings({"kind": "transfer", "strategy": str(tmp_path / "none.yaml")}))


def test_a_strategy_keeps_its_epochs_on_more_rows(tmp_path: Path) -> None:
    found = Rehearsed(tmp_path / "found", settings("guidebook"))
    found.search()
    strategy = best_strategy(found.directory)
    double = replace(strategy.phases[0].configuration, batch_size=8).steps(2 * strategy.train_rows)
    assert [one.steps(strategy.train_rows) for one in strategy.configurations()] == [
        phase.steps for phase in strategy.phases
    ]
    assert double == 2 * strategy.phases[0].steps
    assert strategy.configurations()[0].steps(2 * strategy.train_rows) == 2 * strategy.phases[0].steps
