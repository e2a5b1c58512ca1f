"""The controller of a real search (real processes, rehearsed training) killed with SIGKILL, again and again."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from dying_controller import PATIENCE_SECONDS, count_steps, finish, start
from polling import until

from llmzero_hpc.config import SearchConfig
from llmzero_hpc.report.data import without_clock
from llmzero_hpc.report.reading import read
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_TRAIN_ROWS = 64


def config(iterations: int, **changes: Any) -> SearchConfig:
    settings: dict[str, Any] = {
        "name": "kills",
        "trainer": "rehearsal",
        "model": "none",
        "task": {"name": "chains"},
        "configuration": {"batch_size": 16, "epochs": 2, "max_response_length": 512},
        "bounds": {"batch_size": {"low": 16, "high": 16}, "epochs": {"low": 1, "high": 2}},
        "validate_every_steps": 2,
        "early_stop": {"interval_seconds": 0, "first_step": 4},
        "budget": {"iterations": iterations},
        "rehearsal": {"step_seconds": 0.0, "train_rows": _TRAIN_ROWS, "failure_rate": 0.2},
        "tick_seconds": 0.02,
        "live_views": False,
    }
    return SearchConfig.model_validate(settings | changes)


def create(root: Path, settings: SearchConfig) -> SearchDirectory:
    return SearchDirectory.create(root, SearchRecord.new(settings, _TRAIN_ROWS, time.time()))


def jobs_of(root: Path) -> list[psutil.Process]:
    """Processes of this search that are alive, the controller's apart."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(root) in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_until_quiet(root: Path) -> None:
    until(lambda: not jobs_of(root), lambda: str([orphan.cmdline() for orphan in jobs_of(root)]), PATIENCE_SECONDS)


def assert_same_search(root: Path, expected: SearchDirectory) -> None:
    """The same nodes with the same results; each attempt ran once; nothing is left running."""
    directory = SearchDirectory.open(root)
    tree = directory.read_tree()
    assert without_clock(read(directory, metrics="all")) == without_clock(read(expected, metrics="all"))
    for node in tree:
        assert [attempt.number for attempt in node.attempts] == [1], "no attempt was lost or repeated"
        attempt = directory.phase(node.id).attempt(1)
        starts = attempt.trainer_log.read_text().count("SIMULATED: nothing is trained")
        assert starts == 1, f"node {node.id} was started {starts} times"
        assert len(directory.phase(node.id).attempts()) == 1
    wait_until_quiet(root)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], SearchDirectory]:
    """The same search without any kill, by its number of iterations."""
    made: dict[int, SearchDirectory] = {}

    def make(iterations: int) -> SearchDirectory:
        if iterations not in made:
            directory = create(tmp_path_factory.mktemp("unbroken") / "search", config(iterations))
            finish(directory.root)
            made[iterations] = directory
        return made[iterations]

    return make


def test_the_same_seed_gives_the_same_search(tmp_path: Path, unbroken: Callable[[int], SearchDirectory]) -> None:
    create(tmp_path / "again", config(10))
    finish(tmp_path / "again")
    assert_same_search(tmp_path / "again", unbroken(10))
    create(tmp_path / "other", config(10, seed=1))
    finish(tmp_path / "other")
    other = read(SearchDirectory.open(tmp_path / "other"), metrics="all")
    assert without_clock(other) != without_clock(read(unbroken(10), metrics="all"))


def test_two_hundred_kills_at_random_moments(tmp_path: Path, unbroken: Callable[[int], SearchDirectory]) -> None:
    draw = random.Random(7)
    kills, searches = 0, 0
    while kills < 200:
        root = tmp_path / f"search-{searches}"
        create(root, config(10))
        searches += 1
        while kills < 200:
            process = start(root)
            process.join(draw.uniform(0.0, 0.6))
            if process.exitcode == 0:
                break
            process.kill()
            process.join()
            kills += 1
        finish(root)
        assert_same_search(root, unbroken(10))


def test_a_kill_at_every_durable_step_of_a_phase_and_its_evaluation(
    tmp_path: Path, unbroken: Callable[[int], SearchDirectory]
) -> None:
    create(tmp_path / "counted", config(1))
    steps = count_steps(tmp_path / "counted")
    assert steps > 30
    survived = 0
    for kill_at in range(1, steps + 1):
        root = tmp_path / f"step-{kill_at}"
        create(root, config(1))
        process = start(root, kill_at)
        process.join(PATIENCE_SECONDS)
        survived += process.exitcode == 0
        assert process.exitcode in {0, -signal.SIGKILL}
        finish(root)
        assert_same_search(root, unbroken(1))
    assert survived <= steps // 4, "most runs reach the step at which they are killed"
