"""What people see in a terminal: status, tree, the best strategy, and the live view.

Everything returns a rich renderable that reads well in 80 columns, without colour, and in a pipe; `portable` replaces
what a terminal without UTF-8 cannot show. Whatever an agent wrote is shown as text, never as markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.report import words
from llmzero_hpc.report.data import SearchState
from llmzero_hpc.report.terminal_parts import curves, hanging, portable, simulated
from llmzero_hpc.report.terminal_tree import tree_lines
from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from llmzero_hpc.report.data import BudgetLine, Change, ControllerReport, ReportData

_BAR = 24
_CURVES = 7  # lines of the curves of one phase
_LEAST_TREE = 4
_STATE_STYLES = {
    SearchState.RUNNING: "bold green",
    SearchState.FINISHED: "bold green",
    SearchState.WAITING: "bold yellow",
    SearchState.PAUSED: "bold yellow",
    SearchState.CONTROLLER_GONE: "bold red",
}


def status_view(data: ReportData, height: int | None = None, plots: int = 2) -> RenderableType:
    """The whole state at a glance.

    Args:
        data: with the metrics of the running phases, whose curves are drawn.
        height: most lines that the tree may take; None shows all of it.
        plots: of how many running phases curves are drawn, the newest first.
    """
    from rich.console import Group

    parts: list[RenderableType] = [*_head(data), *_budget(data), *_cluster(data), *_server(data), ""]
    if data.nodes:
        parts += [*tree_lines(data, height), ""]
    running = [node for node in data.nodes if node.status is NodeStatus.RUNNING and node.id in data.series]
    for node in running[-plots:] if plots else []:
        parts += curves(data, node)
    parts += _sentences("next", data.next_step)
    return portable(Group(*parts))


def tree_view(data: ReportData) -> RenderableType:
    """The tree alone, all of it, with what its marks mean."""
    from rich.console import Group
    from rich.text import Text

    if not data.nodes:
        return portable(Text("No phase yet."))
    lines: list[RenderableType] = [simulated()] if data.simulated else []
    legend = Text("● on the best strategy   ★ the best score   a>b changed from a to b", style="dim")
    return portable(Group(*lines, *tree_lines(data, None), legend))


def strategy_view(data: ReportData) -> RenderableType:
    """The best strategy as a table, and its test score."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if data.best is None:
        return portable(Text("No checkpoint has been validated, so there is no strategy to show."))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False, header_style="bold")
    table.add_column("phase", justify="right")
    table.add_column("steps", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("gain", justify="right", no_wrap=True)
    table.add_column("what changed, and why", overflow="fold")
    for phase in data.strategy:
        what = Text(_changes(phase.changes) or ("starts here" if phase.position == 1 else "nothing"))
        if phase.diagnosis and phase.position > 1:
            what.append("\n" + phase.diagnosis, style="dim")
        table.add_row(
            str(phase.node),
            f"{phase.first_step}-{phase.last_step}",
            words.score(phase.score),
            words.gain(phase.gain) if phase.gain is not None else "",
            what,
        )
    lines: list[RenderableType] = [simulated()] if data.simulated else []
    heading = Text("Best strategy", style="bold")
    summary = Text(f"validation {words.score(data.best.score)} at phase {data.best.node}, step {data.best.step}")
    if data.best.gain is not None:
        summary.append(f"  ({words.gain(data.best.gain)} over node 0)")
    return portable(Group(*lines, heading, table, summary, Text(_test_sentence(data))))


class LiveView:
    """A renderable that looks at the search anew each time it is drawn; a look that fails keeps the last one."""

    def __init__(self, look: Callable[[], ReportData]) -> None:
        self._look = look
        self._content: RenderableType = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from llmzero_hpc.errors import LLMZeroError

        try:
            data = self._look()
        except LLMZeroError as error:
            if not self._content:
                from rich.text import Text

                self._content = Text(error.message)
        else:
            running = sum(node.status is NodeStatus.RUNNING for node in data.nodes)
            frame = console.render_lines(status_view(data, height=0, plots=0), options, pad=False)
            room = options.size.height - len(frame) - _LEAST_TREE
            plots = max(0, min(2, running, room // _CURVES))
            self._content = status_view(data, height=_LEAST_TREE + max(0, room - _CURVES * plots), plots=plots)
        yield from console.render(self._content, options)


def live_view(directory: Path) -> LiveView:
    """The status of the search in a folder, for `rich.live.Live(live_view(path), refresh_per_second=2)`.

    Raises:
        SearchNotFoundError, FormatVersionError, CorruptStateError, StorageError: as `SearchDirectory.open`.
    """
    from llmzero_hpc.report.reading import read
    from llmzero_hpc.store.search_directory import SearchDirectory

    search = SearchDirectory.open(directory)
    return LiveView(lambda: read(search))


def _head(data: ReportData) -> list[RenderableType]:
    from rich.text import Text

    lines: list[RenderableType] = []
    head = Text(data.name, style="bold")
    head.append(f"  {data.state.value}", style=_STATE_STYLES.get(data.state, "bold"))
    if data.state not in {SearchState.FINISHED, SearchState.NOT_STARTED} and data.controller.age_seconds is not None:
        pulse = Text(f"controller {_where(data.controller)}", "bold red" if data.controller.is_stale else "dim")
        lines.append(hanging(head + Text("  "), pulse))
    else:
        lines.append(head)
    if data.simulated:
        lines.append(simulated())
    if data.best is None:
        lines.append(Text("best  no score yet"))
    else:
        best = Text("best  ")
        best.append(words.score(data.best.score), style="bold green")
        best.append(f" validation, phase {data.best.node}, step {data.best.step}")
        if data.best.gain is not None:
            best.append(f", {words.gain(data.best.gain)} over node 0")
        lines.append(best)
    if data.test is not None:
        lines.append(Text(f"test  {_test_sentence(data).removeprefix('test ')}"))
    return lines


def _where(controller: ControllerReport) -> str:
    if controller.queued_job_id:
        return f"waits in the queue as job {controller.queued_job_id}"
    age = words.duration(controller.age_seconds or 0)
    if controller.is_gone:
        said = f"{'STALE: ' if controller.is_stale else ''}said nothing for {age}"
    else:
        said = f"ticked {age} ago, by cron" if controller.by_cron else f"alive, heard {age} ago"
    return f"{said} ({controller.host}, {f'job {controller.job_id}' if controller.job_id else f'pid {controller.pid}'})"


def _test_sentence(data: ReportData) -> str:
    if data.test is None:
        return "test not measured yet: once, when the search is over"
    if data.test.score is None:
        return f"test not measured: {words.clipped(data.test.problem, 200)}"
    return f"test {words.score(data.test.score)}, measured once, phase {data.test.node}, step {data.test.step}"


def _budget(data: ReportData) -> list[RenderableType]:
    from rich.text import Text

    width = max(len(line.unit) for line in data.budget)
    lines: list[RenderableType] = []
    for line in data.budget:
        text = Text(f"{line.unit:<{width}}  " if line.name != "deadline" else f"{'deadline':<{width}}  ")
        if line.limit is None:
            text.append(f"{_amount(line, line.used)} used, no limit")
        else:
            full = round(_BAR * min(1.0, line.used / line.limit))
            text.append("█" * full, style="cyan").append("░" * (_BAR - full), style="dim")
            text.append(
                f"  {_amount(line, line.used)} of {_amount(line, line.limit)}, {_amount(line, line.left or 0)} left"
            )
        lines.append(text)
        lines += [Text(f"{'':<{width}}  {remark}", style="dim") for remark in _remarks(line)]
    return [*lines, *_model(data)]


def _remarks(line: BudgetLine) -> list[str]:
    remarks = []
    if line.limit is not None and line.reserved:
        remarks.append(f"{_amount(line, line.reserved)} of what is left is reserved for phases in flight")
    if line.estimated:
        remarks.append(f"{_amount(line, line.estimated)} of it estimated: not in the cluster's accounts yet")
    return remarks


def _model(data: ReportData) -> list[RenderableType]:
    """What the language model behind the agents has come to."""
    model = data.model
    if model is None:
        return []
    calls = f"{model.calls:,} call{'' if model.calls == 1 else 's'}"
    money = "" if model.dollars is None else f", {words.dollars(model.dollars)}"
    return _sentences("agents", f"{words.clipped(model.name, 40)}: {calls}, {model.tokens:,} tokens{money}")


def _cluster(data: ReportData) -> list[RenderableType]:
    """How often the cluster was asked, and what it says of phases that wait for it."""
    controller = data.controller
    parts = []
    if controller.calls:
        names = ", ".join(f"{name} {count}" for name, count in controller.calls.items())
        parts.append(f"{controller.cluster_calls} calls ({names})")
    waiting = any(node.is_active and node.status is not NodeStatus.RUNNING for node in data.nodes)
    if controller.waiting_for and waiting and not controller.is_gone:
        parts.append(controller.waiting_for)
    return _sentences("cluster", "; ".join(parts)) if parts else []


def _server(data: ReportData) -> list[RenderableType]:
    """Where the agents' own language model is."""
    said = "" if data.controller.is_gone else data.controller.server
    return _sentences("server", said) if said else []


def _amount(line: BudgetLine, value: float) -> str:
    if line.unit == "iterations":
        return str(int(value))
    if line.unit == "dollars":
        return f"{value:.2f}"
    return words.hours(value) + (" h" if line.name == "deadline" else "")


def _sentences(name: str, text: str) -> list[RenderableType]:
    from rich.text import Text

    return [hanging(Text(f"{name}  ", style="bold"), Text(text))]


def _changes(changes: Sequence[Change]) -> str:
    return ", ".join(words.change(change.name, change.before, change.after) for change in changes)
