"""What a run of VeRL leaves, turned into what the search reads, while it trains: adapters and rows of metrics.

A step that is validated is saved before, so its adapter is extracted first and its row is written after that. Only the
newest state stays on disk, and an older one goes when a newer one is complete and has its adapter.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from llmzero_hpc.search.metrics import VALIDATION_SCORE
from llmzero_hpc.store.metrics_log import read_series
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.tasks.registry import load_task
from llmzero_hpc.trainers.checkpoints import checkpoint_path, is_adapter
from llmzero_hpc.trainers.verl.adapter import extract_adapter
from llmzero_hpc.trainers.verl.log import LogReader, continued
from llmzero_hpc.trainers.verl.metrics import Shape, alarms, canonical_metrics, validation_result
from llmzero_hpc.trainers.verl.state import drop_older, named_state, states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llmzero_hpc.search.metrics import MetricRow
    from llmzero_hpc.store.metrics_log import MetricsWriter
    from llmzero_hpc.trainers.base import PhaseSpec
    from llmzero_hpc.trainers.verl.layout import Layout
    from llmzero_hpc.trainers.verl.log import Line


class Mirror:
    """Follows one run of a phase. Used by one thread.

    Args:
        spec: the phase.
        place: where VeRL writes in this run.
        writer: takes the rows.
        resumed: the step of VeRL's count after which this run starts, 0 for the beginning.
        tell: takes each line for people.
    """

    def __init__(
        self, spec: PhaseSpec, place: Layout, writer: MetricsWriter, resumed: int, tell: Callable[[str], None]
    ) -> None:
        self._spec, self._place, self._writer, self._tell = spec, place, writer, tell
        task, configuration = load_task(spec.task), spec.configuration
        self._rows = Counter(row.data_source for row in task.rows(Split.VALIDATION))
        self._shape = Shape(
            response_limit=configuration.max_response_length,
            responses=configuration.batch_size * configuration.rollouts,
            steps_per_epoch=max(1, len(task.rows(Split.TRAIN)) // configuration.batch_size),
        )
        self._log = LogReader(place.metrics)
        self._resumed = resumed
        # Of the steps that this run makes anew, the adapters of an earlier one are not those of its scores.
        self._extracted = {resumed} if is_adapter(self._checkpoint(resumed)) else set[int]()
        self._zeros: dict[int, int] = {}
        self._scored: set[int] = set()

    @property
    def is_complete(self) -> bool:
        """Whether the last step is validated, its row is written and its adapter is there."""
        last = self._spec.total_steps
        return last in self._scored and is_adapter(self._checkpoint(last))

    @property
    def is_score_due(self) -> bool:
        """Whether the step after which this run starts has no validation score yet."""
        return self._resumed > 0 and self._resumed not in self._scored

    def catch_up(self, logs: Sequence[Path], metrics: Sequence[Path]) -> None:
        """Write the rows up to the start of this run that earlier ones were killed before writing.

        Args:
            logs: VeRL's logs of the earlier runs, one after the other.
            metrics: the rows of all attempts.

        Raises:
            StorageError: the file system refused.
            CorruptStateError: the state that this run starts from holds no adapter.
        """
        self._extract_adapters()
        written = {self._step_of(row): row for row in read_series(metrics).rows}
        lines = {step: line for step, line in continued(logs).items() if 0 < step <= self._resumed}
        missing = [step for step, line in lines.items() if not self._says_all(written.get(step), line)]
        # A row voids what was written of later steps before it, so they are written again or left alone.
        due = range(min(missing, default=self._resumed + 1), self._resumed + 1)
        if all(step in lines for step in due if step in written):
            for step in due:
                if step in lines:
                    self._write(lines[step])
        newest = written.get(self._resumed)
        if newest is not None and newest.validation_score is not None:
            self._scored.add(self._resumed)

    def look(self) -> None:
        """Take over what is new.

        Raises:
            StorageError: the file system refused.
            CorruptStateError: a state that VeRL calls complete holds no adapter.
        """
        # A line that is there now is later than its state, so this order misses none.
        lines = self._log.new_lines()
        self._extract_adapters()
        for line in lines:
            if line.step:
                self._write(line)

    def _extract_adapters(self) -> None:
        newest = named_state(self._place)
        for step in states(self._place):
            if step > newest or step in self._extracted:
                continue
            self._zeros[step] = extract_adapter(self._place.state(step), self._checkpoint(step), self._spec.model)
            self._extracted.add(step)
        if newest in self._extracted:
            drop_older(self._place, newest)

    def _write(self, line: Line) -> None:
        raw = dict(line.raw)
        found = alarms(raw)
        if zeros := self._zeros.get(line.step, 0):
            found["alarm/zero_lora_tensors"] = f"{zeros} tensors of the adapter are zero: nothing is learnt in them"
            raw["alarm/zero_lora_tensors"] = float(zeros)
        step = self._spec.first_step + line.step - 1
        for name, text in found.items():
            raw.setdefault(name, 1.0)
            self._tell(f"alarm: step {step}: {text}")
        values = canonical_metrics(raw, line.step, self._shape)
        result = validation_result(raw, self._rows)
        if result is not None and is_adapter(self._checkpoint(line.step)):
            values[VALIDATION_SCORE] = result.score
            values |= {f"{VALIDATION_SCORE}/{source}": score for source, score in result.subtask_scores.items()}
            self._scored.add(line.step)
        elif self._spec.is_validated(step):
            self._tell(f"alarm: step {step}: its validation score does not count: rows or the adapter are missing")
        self._writer.write(step, values, raw)

    def _says_all(self, row: MetricRow | None, line: Line) -> bool:
        if row is None:
            return False
        return row.validation_score is not None or validation_result(line.raw, self._rows) is None

    def _step_of(self, row: MetricRow) -> int:
        return row.step - self._spec.first_step + 1

    def _checkpoint(self, step: int) -> Path:
        return checkpoint_path(self._spec.checkpoints, self._spec.first_step + step - 1)
