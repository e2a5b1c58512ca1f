"""Work in another process: its results, progress and errors come back, its imports do not."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from llmzero_hpc.controller.apart import apart
from llmzero_hpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


def import_something(name: str) -> tuple[int, bool]:
    __import__(name)
    return os.getpid(), name in sys.modules


def count(total: int, report: Callable[[int, int], None]) -> str:
    for done in range(total):
        report(done + 1, total)
    return "counted"


def refuse() -> None:
    raise ConfigurationError("no such model", "give another")


def vanish() -> None:
    os._exit(7)


def test_imports_stay_there() -> None:
    process, imported = apart(import_something, "wave")
    assert process != os.getpid()
    assert imported
    assert "wave" not in sys.modules


def test_progress_arrives_in_order() -> None:
    seen: list[tuple[int, int]] = []
    assert apart(count, 3, progress=lambda done, total: seen.append((done, total))) == "counted"
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_error_for_people_comes_back_whole() -> None:
    with pytest.raises(ConfigurationError) as caught:
        apart(refuse)
    assert (caught.value.message, caught.value.next_step) == ("no such model", "give another")


def test_a_process_that_dies_is_said() -> None:
    with pytest.raises(ChildProcessError, match="code 7"):
        apart(vanish)
