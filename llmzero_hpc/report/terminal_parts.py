# ruff: noqa: RUF001 - a table of such characters is the point
"""What the terminal's views are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.report import braille, words
from llmzero_hpc.search.metrics import Series

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

    from llmzero_hpc.report.data import NodeReport, ReportData

SIMULATED = "SIMULATED: the rehearsal trainer made these numbers up; nothing was trained."
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


def simulated() -> Text:
    """What every view says of made-up numbers."""
    from rich.text import Text

    return Text(SIMULATED, style="bold yellow")


def hanging(head: Text, body: Text) -> RenderableType:
    """The body beside its head, further lines of it below its own beginning."""
    from rich.table import Table

    table = Table.grid()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(head, body)
    return table


def field(name: str, value: str) -> RenderableType:
    """A named value."""
    from rich.text import Text

    return hanging(Text(f"  {name:<11}", style="dim"), Text(value))


def curves(data: ReportData, node: NodeReport) -> list[RenderableType]:
    """Validation score and reward of one phase; nothing while there are none."""
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


def author_of(author: str, rule: str) -> str:
    """Who proposed or stopped, for people."""
    if author == "playbook":
        return f"the playbook (rules{f', {rule}' if rule else ''})"
    if author == "default":
        return "nobody: the search was given it"
    return words.clipped(author, 60) or "nobody yet"
