"""What the files of a phase show while it runs: attempts that write side by side, read at any moments."""

from __future__ import annotations

import tempfile
from pathlib import Path

from controller_world import small_config
from hypothesis import given, settings
from hypothesis import strategies as st

from llmzero_hpc.controller.progress import Progress
from llmzero_hpc.search.node import Attempt, Node, TransitionKind
from llmzero_hpc.store.metrics_log import MetricsWriter
from llmzero_hpc.store.search_directory import SearchDirectory, SearchRecord


@given(st.lists(st.sampled_from(["first writes", "second writes", "look"]), max_size=25))
@settings(max_examples=40)
def test_a_late_row_of_an_earlier_attempt_changes_nothing_of_a_later_one(events: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = SearchDirectory.create(Path(folder), SearchRecord.new(small_config(), 64, 0.0))
        attempts = tuple(Attempt(number, f"lz-a-{number}", 0.0) for number in (1, 2))
        node = Node(0, TransitionKind.SCRATCH, None, 1, 0.0, attempts=attempts)
        writers = []
        for number in (1, 2):
            attempt = directory.phase(0).attempt(number)
            attempt.create()
            writers.append(MetricsWriter(attempt.metrics, number, 0))
        progress = Progress(directory)
        # The second attempt resumes after the second step; the first one does not know that it was given up.
        steps, written = [1, 3], [0, 0]
        for event in ["first writes", "first writes", *events]:
            if event == "look":
                progress.observe(node)
                continue
            who = event == "second writes"
            writers[who].write(steps[who], {"kl": float(who)})
            steps[who] += 1
            written[who] += 1
        series, _ = progress.observe(node)
        first = written[0] if not written[1] else 2
        expected = [(step, 0.0) for step in range(1, first + 1)] + [(step, 1.0) for step in range(3, 3 + written[1])]
        assert list(series.points("kl")) == expected
        assert directory.metrics(0) == series
