# ruff: noqa: RUF001 - a table of such characters is the point
"""What people see in a terminal: status, tree, one phase, the best strategy, and the live view.

Everything returns a rich renderable that reads well in 80 columns, without colour, and in a pipe; `portable` replaces
what a terminal without UTF-8 cannot show. Whatever an agent wrote is shown as text, never as markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.report import braille, words
from llmzero_hpc.report.data import SearchState
from llmzero_hpc.report.terminal_tree import tree_lines
from llmzero_hpc.search.metrics import Series
from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

    from llmzero_hpc.report.data import BudgetLine, Change, NodeReport, ReportData

SIMULATED = "SIMULATED: the rehearsal trainer made these numbers up; nothing was trained."
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
_ASCII = str.maketrans(
    {
        "✓": "+", "✗": "x", "▶": ">", "■": "#", "◷": "~", "…": ".", "–": "-", "★": "*", "●": "@", "○": "o", "├": "|",
        "└": "`", "─": "-", "│": "|", "█": "#", "░": ".", "·": "-", "→": ">", "−": "-", "▏": "|",
    }
)  # fmt: skip
_ASCII.update(dict.fromkeys(range(10241, 10496), ".") | {0x2800: " "})


class _Portable:
    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for segment in console.render(self._content, options):
            plain = segment.text.translate(_ASCII) if options.ascii_only else segment.text
            yield Segment(plain, segment.style, segment.control)


def portable(content: RenderableType) -> RenderableType:
    """The same, in ASCII where the terminal's encoding has no more."""
    return _Portable(content)


def status_view(data: ReportData, height: int | None = None, plots: int = 2) -> RenderableType:
    """The whole state at a glance.

    Args:
        data: with the metrics of the running phases, whose curves are drawn.
        height: most lines that the tree may take; None shows all of it.
        plots: of how many running phases curves are drawn, the newest first.
    """
    from rich.console import Group

    parts: list[RenderableType] = [*_head(data), *_budget(data), ""]
    if data.nodes:
        parts += [*tree_lines(data, height), ""]
    running = [node for node in data.nodes if node.status is NodeStatus.RUNNING and node.id in data.series]
    for node in running[-plots:] if plots else []:
        parts += _curves(data, node)
    parts += _sentences("next", data.next_step)
    return portable(Group(*parts))


def tree_view(data: ReportData) -> RenderableType:
    """The tree alone, all of it, with what its marks mean."""
    from rich.console import Group
    from rich.text import Text

    if not data.nodes:
        return portable(Text("No phase yet."))
    lines: list[RenderableType] = [_simulated()] if data.simulated else []
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
    lines: list[RenderableType] = [_simulated()] if data.simulated else []
    heading = Text("Best strategy", style="bold")
    summary = Text(f"validation {words.score(data.best.score)} at phase {data.best.node}, step {data.best.step}")
    if data.best.gain is not None:
        summary.append(f"  ({words.gain(data.best.gain)} over node 0)")
    return portable(Group(*lines, heading, table, summary, Text(_test_sentence(data))))


def show_view(data: ReportData, node_id: int, log_path: Path | None = None) -> RenderableType:
    """Everything of one phase. Raises IndexError for a phase that is not there."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    if node_id < 0:
        raise IndexError(node_id)
    node = data.nodes[node_id]
    lines: list[RenderableType] = [_simulated()] if data.simulated else []
    head = Text(f"Phase {node.id}", style="bold")
    head.append(f"  {node.kind.value}{_origin(node)}", style="")
    lines.append(head)
    lines += [_field(name, value) for name, value in _facts(data, node) if value]
    if node.diagnosis or node.author:
        lines += ["", Text("Why", style="bold"), Padding(Text(node.diagnosis or "–"), (0, 0, 0, 2))]
        lines += [Padding(Text(f"- {item}"), (0, 0, 0, 4)) for item in node.evidence]
        lines.append(Padding(Text(f"proposed by {_author(node.author, node.rule)}", style="dim"), (0, 0, 0, 2)))
    if node.configuration is not None:
        lines += ["", Text("Configuration", style="bold") + Text("  (* changed)" if node.changes else "", style="dim")]
        lines += _configuration(node)
    if node.checkpoints:
        lines += ["", Text("Checkpoints", style="bold")]
        for point in node.checkpoints:
            mark = "★" if point.step == node.best_step else " "
            lines.append(
                Text(f"  {mark} step {point.step:<6} {words.score(point.score)}", style="bold" if mark == "★" else "")
            )
    if node.attempts:
        lines += ["", Text("Attempts", style="bold")]
        for attempt in node.attempts:
            ended = attempt.ending.replace("_", " ") if attempt.ending else "not over"
            code = "" if attempt.exit_code is None else f", exit code {attempt.exit_code}"
            job = f"job {attempt.job_id}" if attempt.job_id else "no job"
            lines.append(
                Text(
                    f"  {attempt.number}  {job}: {ended}{code}, {words.duration(attempt.device_seconds)} of device time"
                )
            )
    if curves := _curves(data, node):
        lines += ["", *curves]
    if log_path is not None:
        lines += ["", _field("log", str(log_path))]
    return portable(Group(*lines))


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


def _simulated() -> Text:
    from rich.text import Text

    return Text(SIMULATED, style="bold yellow")


def _head(data: ReportData) -> list[RenderableType]:
    from rich.text import Text

    lines: list[RenderableType] = []
    head = Text(data.name, style="bold")
    head.append(f"  {data.state.value}", style=_STATE_STYLES.get(data.state, "bold"))
    if data.state not in {SearchState.FINISHED, SearchState.NOT_STARTED} and data.controller.age_seconds is not None:
        where = data.controller
        said = "said nothing for" if where.is_gone else "alive, heard"
        ago = "" if where.is_gone else " ago"
        pulse = Text(
            f"controller {said} {words.duration(where.age_seconds or 0)}{ago} ({where.host}, pid {where.pid})", "dim"
        )
        lines.append(_hanging(head + Text("  "), pulse))
    else:
        lines.append(head)
    if data.simulated:
        lines.append(_simulated())
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
    return lines


def _amount(line: BudgetLine, value: float) -> str:
    if line.unit == "iterations":
        return str(int(value))
    return words.hours(value) + (" h" if line.name == "deadline" else "")


def _curves(data: ReportData, node: NodeReport) -> list[RenderableType]:
    from rich.text import Text

    series = data.series.get(node.id, Series())
    drawn = [
        (title, points)
        for title, name in (("validation", "val_score"), ("reward", "reward_mean"))
        if (points := series.points(name))
    ]
    if not drawn:
        return []
    limits = (float(node.first_step), float(node.planned_last_step or node.last_step or node.first_step))
    width, height = 36, 4
    blocks = [
        [f"{title} {words.score(points[-1][1])}", *braille.plot(points, width, height, limits)]
        for title, points in drawn
    ]
    for block, (_, points) in zip(blocks, drawn, strict=True):
        values = [value for _, value in points]
        block[0] += f"  ({words.score(min(values))} to {words.score(max(values))})"
    steps = (
        f"steps {node.first_step} to {node.planned_last_step}"
        if node.planned_last_step
        else f"from step {node.first_step}"
    )
    lines: list[RenderableType] = [Text(f"phase {node.id}, {steps}, now at {node.last_step}", style="bold")]
    for row in range(height + 1):
        text = Text()
        for index, block in enumerate(blocks):
            text.append("▏" if row else "", style="dim").append(
                f"{block[row]:<{width + (2 if row else 3)}}", style=("green", "cyan")[index] if row else ""
            )
        text.rstrip()
        lines.append(text)
    lines.append("")
    return lines


def _sentences(name: str, text: str) -> list[RenderableType]:
    from rich.text import Text

    return [_hanging(Text(f"{name}  ", style="bold"), Text(text))]


def _field(name: str, value: str) -> RenderableType:
    from rich.text import Text

    return _hanging(Text(f"  {name:<11}", style="dim"), Text(value))


def _hanging(head: Text, body: Text) -> RenderableType:
    """The body beside its head, further lines of it below its own beginning."""
    from rich.table import Table

    table = Table.grid()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(head, body)
    return table


def _origin(node: NodeReport) -> str:
    parts = [] if node.resume_node is None else [f"from phase {node.resume_node}, step {node.resume_step}"]
    if node.repairs is not None:
        parts.append(f"repairs phase {node.repairs}")
    return f" ({'; '.join(parts)})" if parts else ""


def _author(author: str, rule: str) -> str:
    if author == "playbook":
        return f"the playbook (rules{f', {rule}' if rule else ''})"
    if author == "default":
        return "nobody: the search was given it"
    return words.clipped(author, 60) or "nobody yet"


def _facts(data: ReportData, node: NodeReport) -> list[tuple[str, str]]:
    planned = f" of {node.steps_planned}" if node.steps_planned is not None else ""
    best = f"{words.score(node.score)} at step {node.best_step}" if node.score is not None else "no score yet"
    pruned = ", pruned" if node.pruned else ""
    return [
        ("status", f"{words.STATUS_SYMBOLS[node.status]} {words.STATUS_WORDS[node.status]}{pruned}"),
        ("score", best + (", on the best strategy" if node.on_best_path else "")),
        ("steps", f"{node.steps_done}{planned}, first step {node.first_step} of its strategy"),
        ("cost", f"{words.duration(node.device_seconds)} of device time ({data.device_unit})"),
        ("stopped", node.stop_reason + (f" ({_author(node.stop_author, '')})" if node.stop_reason else "")),
        ("problem", node.problem),
    ]


def _changes(changes: Sequence[Change]) -> str:
    return ", ".join(words.change(change.name, change.before, change.after) for change in changes)


def _configuration(node: NodeReport) -> list[RenderableType]:
    from rich.text import Text

    before = {change.name: change.before for change in node.changes}
    lines: list[RenderableType] = []
    for name, value in (node.configuration or {}).items():
        changed = name in before
        text = Text(f"  {'*' if changed else ' '} {name:<24} {words.number(value)}", style="bold" if changed else "")
        if changed:
            text.append(f"  (was {words.number(before[name])} in phase {node.compared_with})", style="dim")
        lines.append(text)
    return lines
