"""Each command, on a finished search, on one that has not begun, and as the start of one."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from command_line import CommandLine, Said, run, wait_for

from llmzero_hpc import __version__
from llmzero_hpc.cli import main
from llmzero_hpc.config import load
from llmzero_hpc.search.node import Node, NodeStatus, TransitionKind
from llmzero_hpc.store.control import cancel_requests, is_paused
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord
from llmzero_hpc.trainers.checkpoints import is_adapter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def unstarted(command: CommandLine) -> CommandLine:
    """A search that was created, and whose controller died before its first tick."""
    config = load(command.write(name="young"))
    SearchDirectory.create(command.folder / "state" / "young", SearchRecord.new(config, 512, 0.0))
    return command


@pytest.fixture
def planned(unstarted: CommandLine) -> CommandLine:
    """A search whose node 0 waits for its configuration; no controller drives it."""
    directory = SearchDirectory.open(unstarted.folder / "state" / "young")
    directory.write_tree(directory.read_tree().adding(Node(0, TransitionKind.SCRATCH, None, 1, 0.0)))
    return unstarted


def test_run_tells_what_happens_and_shows_the_result(first_run: tuple[Path, Said]) -> None:
    folder, said = first_run
    assert said.code == 0, said
    assert not said.err
    assert "completed, best validation" in said.out
    assert "Best strategy" in said.out
    assert said.out.splitlines()[-1] == f"Report  {folder / 'state' / 'done' / 'report.html'}"


def test_run_of_a_finished_search_shows_its_result_again(finished: CommandLine) -> None:
    for start in ("done", "search.yaml"):
        said = finished("run", start)
        assert said.code == 0
        assert "Best strategy" in said.out


@pytest.mark.parametrize("options", [(), ("--own-data",), ("--rehearsal",)])
def test_init_writes_a_search_that_loads(options: tuple[str, ...], command: CommandLine) -> None:
    said = command("init", "new/folder", *options)
    assert said.code == 0
    path = command.folder / "new" / "folder" / "search.yaml"
    config = load(path)
    assert said.out.splitlines()[-1] == (
        f"  next: {'say where your model and data are' if '--own-data' in options else 'read it'}, "
        "then `llmzero-hpc run new/folder/search.yaml --dry-run`"
    )
    if "--own-data" in options:
        assert config.task.name == "files"
        assert {path.name for path in path.parent.iterdir()} == {
            "search.yaml", "reward.py", "train.jsonl", "validation.jsonl", "test.jsonl",
        }  # fmt: skip


def test_init_overwrites_nothing(command: CommandLine) -> None:
    mine = command.folder / "search.yaml"
    mine.write_text("mine")
    said = command.refused("init")
    assert said.code == 3
    assert "search.yaml is there already" in said.err
    assert mine.read_text() == "mine"


@pytest.mark.slow
def test_the_rehearsal_of_init_runs_to_its_end(command: CommandLine) -> None:
    command("init", "--rehearsal")
    path = command.folder / "search.yaml"
    text = path.read_text(encoding="utf-8")
    for slow, fast in (("step_seconds: 0.05", "step_seconds: 0"), ("iterations: 16", "iterations: 2"),
                       ("tick_seconds: 0.5", "tick_seconds: 0.02\nlive_views: false")):  # fmt: skip
        assert slow in text
        text = text.replace(slow, fast)
    path.write_text(text, encoding="utf-8")
    said = run("run", "search.yaml", folder=command.folder)
    assert said.code == 0, said
    assert "SIMULATED" in said.out


def test_a_dry_run_shows_the_first_phase_and_starts_nothing(command: CommandLine) -> None:
    path = command.write()
    said = command("run", path, "--dry-run")
    assert said.code == 0
    assert "everything checked, nothing started" in said.out
    assert "node 0: 16 steps, 4 validations, 64 prompts x 8 rollouts a step" in said.out
    plan = json.loads(command("run", path, "--dry-run", "--json").out)
    assert plan["first_phase"]["steps"] == 16
    assert plan["first_phase"]["responses"] == 16 * 64 * 8
    assert plan["first_phase"]["configuration"]["batch_size"] == 64
    assert plan["budget"] == {
        "iterations": 4,
        "device_hours": None,
        "deadline_hours": None,
        "api_dollars": None,
        "includes_test": True,
        "strategy_device_hours": None,
    }
    assert not (command.folder / "state").exists()


def test_ticks_alone_drive_a_search_to_its_end(command: CommandLine) -> None:
    command.write(name="ticked", budget={"iterations": 1})
    SearchDirectory.create(
        command.folder / "state" / "ticked", SearchRecord.new(load(command.folder / "search.yaml"), 512, 0.0)
    )
    words: list[str] = []

    def is_over() -> bool:
        said = command("tick")
        assert said.code == 0, said
        words.append(said.out.strip())
        return words[-1] == "the search is over"

    wait_for(is_over, "the end of the search")
    assert any("node 0" in line for line in words)


def test_status_as_text_and_as_json(finished: CommandLine) -> None:
    said = finished("status")
    assert said.code == 0
    assert said.out.startswith("done  finished")
    data = json.loads(finished("status", "--json").out)
    assert data["name"] == "done"
    assert data["state"] == "finished"
    assert len(data["nodes"]) == 4


def test_watching_a_finished_search_shows_it_and_returns(finished: CommandLine) -> None:
    said = finished("status", "--watch")
    assert said.code == 0
    assert "done  finished" in said.out


def test_the_tree_as_text_and_as_json(finished: CommandLine) -> None:
    assert "0 scratch" in finished("tree").out
    nodes = json.loads(finished("tree", "--json").out)
    assert [node["id"] for node in nodes] == [0, 1, 2, 3]


def test_show_has_the_whole_phase(finished: CommandLine) -> None:
    said = finished("show", "1")
    for words in ("Phase 1", "Configuration", "learning_rate", "Checkpoints", "Attempts", "trainer.log"):
        assert words in said.out
    node = json.loads(finished("show", "1", "--json").out)
    assert node["id"] == 1
    assert node["configuration"]["rollouts"] >= 2


def test_the_calls_about_a_phase_as_text_and_as_json(finished: CommandLine) -> None:
    said = finished("show", "1", "--agents")
    assert said.code == 0
    assert said.out.startswith("Phase 1")
    assert "No language model was asked about it." in said.out
    assert json.loads(finished("show", "1", "--agents", "--json").out)["calls"] == []
    assert finished.refused("show", "9", "--agents").code == 4


def test_logs_are_the_trainers(finished: CommandLine) -> None:
    whole = finished("logs", "0").out
    assert "SIMULATED step 16/16" in whole
    assert finished("logs", "0", "-n", "2").out.splitlines() == whole.splitlines()[-2:]
    assert finished("logs", "0", "--follow").out == whole
    assert finished("logs", "0", "--attempt", "1").out == whole


def test_plot_and_report_print_what_they_wrote(finished: CommandLine) -> None:
    for arguments in (("plot",), ("plot", "--node", "1"), ("report",)):
        said = finished(*arguments)
        assert said.code == 0
        for line in said.out.splitlines():
            assert (finished.folder / line).stat().st_size > 0
    assert "curves.png" in finished("plot", "--node", "1").out


def test_export_takes_the_strategy_and_its_adapter_out(finished: CommandLine, tmp_path: Path) -> None:
    said = finished("export", tmp_path / "out")
    assert said.code == 0
    strategy = yaml.safe_load((tmp_path / "out" / "strategy.yaml").read_text(encoding="utf-8"))
    assert strategy["search"] == "done"
    assert strategy["phases"][0]["node"] == 0
    assert is_adapter(tmp_path / "out" / "adapter")
    assert "is there already" in finished.refused("export", tmp_path / "out").err


def test_an_adapter_that_is_gone_is_not_exported(finished: CommandLine, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder / "state" / "done", copy)
    for folder in copy.glob("phases/*/checkpoints"):
        shutil.rmtree(folder)
    said = finished.refused("export", tmp_path / "out", copy)
    assert said.code == 4
    assert "the best adapter is gone" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (("stop",), "No controller drives done; nothing to stop."),
        (("pause",), "done is over; nothing to pause."),
        (("resume",), "done is not paused; nothing to resume."),
        (("cancel", "1"), "Node 1 has ended already (completed); nothing to cancel."),
    ],
)
def test_requests_to_a_search_that_is_over_change_nothing(
    request_: tuple[str, ...], answer: str, finished: CommandLine
) -> None:
    said = finished(*request_)
    assert said == Said(0, answer + "\n", "")
    assert list((finished.folder / "state" / "done" / "control").iterdir()) == []


def test_pause_and_resume(unstarted: CommandLine) -> None:
    directory = SearchDirectory.open(unstarted.folder / "state" / "young")
    assert "paused" in unstarted("pause").out
    assert is_paused(directory)
    assert "paused" in unstarted("status").out
    assert "paused" in unstarted("tick").out
    assert not len(directory.read_tree())
    said = unstarted("resume")
    assert not is_paused(directory)
    assert "`llmzero-hpc start young` starts one" in said.out


def test_a_phase_cancelled_without_a_controller_ends_when_one_runs(planned: CommandLine) -> None:
    directory = SearchDirectory.open(planned.folder / "state" / "young")
    said = planned("cancel", "0")
    assert said.out.splitlines() == [
        "Node 0 (planned) is cancelled when a controller runs again.",
        "  next: no controller runs; `llmzero-hpc start young` starts one, `llmzero-hpc tick young` does one step",
    ]
    assert cancel_requests(directory) == [0]
    assert planned("tick").code == 0
    assert directory.read_tree()[0].status is NodeStatus.CANCELLED


def test_before_the_first_tick_every_look_says_so(unstarted: CommandLine) -> None:
    assert "Nothing runs yet" in unstarted("status").out
    assert unstarted("tree").out == "No phase yet.\n"
    for look in ("show", "logs", "cancel"):
        said = unstarted.refused(look, "0")
        assert said.code == 4
        assert "young has no phase yet" in said.err
    for arguments in (("plot",), ("export", "out")):
        assert unstarted.refused(*arguments).code == 4
    assert unstarted("report").code == 0


def test_a_planned_phase_without_a_configuration_can_be_looked_at(planned: CommandLine) -> None:
    said = planned("show", "0")
    assert said.code == 0
    assert "planned" in said.out
    assert "Configuration" not in said.out
    said = planned.refused("logs", "0")
    assert said.code == 4
    assert "node 0 (planned) has not been submitted, so it has no log" in said.err


@pytest.mark.parametrize("arguments", [("status",), ("tree",), ("show", "1"), ("logs", "1"), ("run", "done")])
def test_piped_output_is_plain_and_fits_80_columns(arguments: tuple[str, ...], first_run: tuple[Path, Said]) -> None:
    said = run(*arguments, folder=first_run[0])
    assert said.code == 0
    assert "\x1b" not in said.out
    # paths are not broken, as people copy them
    assert not [line for line in said.out.splitlines() if len(line) > 80 and str(first_run[0]) not in line]


def test_the_program_without_a_command_shows_them(command: CommandLine) -> None:
    said = command()
    assert said.code == main.USAGE
    assert re.search(r"^  init +Write", said.out, re.MULTILINE)
    assert command("--version") == Said(0, __version__ + "\n", "")
