"""The report: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmzero_hpc.report import words
from llmzero_hpc.report.chart_svg import Boundary, Line, line_chart, trajectory_chart, trajectory_width
from llmzero_hpc.report.data import Trajectory
from llmzero_hpc.report.evidence import checked
from llmzero_hpc.report.tree_svg import render_tree
from llmzero_hpc.store.agent_calls import Spending

if TYPE_CHECKING:
    from llmzero_hpc.report.data import ReportData

_CURVES = (
    "val_score", "reward_mean", "response_length_mean", "response_clip_ratio", "entropy", "kl", "zero_std_fraction",
    "grad_norm", "clip_fraction", "policy_loss",
)  # fmt: skip
_CLASS_TITLES = {
    "capacity": ("Capacity", "what earlier phases built needs it: expected to accumulate"),
    "regularization": ("Regularization", "exploration against exploitation: free to turn back"),
    "other": ("Other", ""),
    "override": ("Keys of the trainer", ""),
    "fixed": ("Fixed along a strategy", ""),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A titled chart; `svg` is markup that this program wrote, everything in it escaped."""

    title: str
    svg: str


@dataclass(frozen=True, slots=True)
class ParameterClassView:
    """The hyperparameters of one class along the best strategy."""

    title: str
    meaning: str
    charts: tuple[tuple[Trajectory, str], ...]
    changed: tuple[Trajectory, ...]
    constant: tuple[Trajectory, ...]

    @property
    def column(self) -> int:
        """Width, in pixels, from which on every chart shows all its phases."""
        return round(max([330.0, *(trajectory_width(trajectory) + 8 for trajectory, _ in self.charts)]))

    @property
    def reversals(self) -> int:
        """Changes of direction of the whole class."""
        return sum(item.reversals for item in self.changed)


def render(data: ReportData) -> str:
    """The whole page. The same data give the same bytes.

    Metrics of the best strategy's phases should be among `data.series`; without them its curves are left out.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("llmzero_hpc.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": words.score,
        "gain": words.gain,
        "number": words.number,
        "hours": words.hours,
        "duration": words.duration,
        "parameter": words.parameter,
        "clock": words.clock,
        "dollars": words.dollars,
        "agent": words.agent,
        "svg": Markup,
    }
    page: str = environment.get_template("report.html.j2").render(
        data=data,
        tree=render_tree(data) if data.nodes else "",
        curves=strategy_curves(data),
        progress=progress_charts(data),
        classes=parameter_classes(data),
        evidence=[checked(data, node.id) for node in data.nodes],
        spent=sum((cost.spending for cost in data.costs), start=Spending()),
        symbols=words.STATUS_SYMBOLS,
        status_words=words.STATUS_WORDS,
        total_seconds=sum(node.device_seconds for node in data.nodes),
    )
    return page


def strategy_curves(data: ReportData) -> tuple[Figure, ...]:
    """One chart a metric along the best strategy, phase boundaries marked; the validation score first."""
    series = data.strategy_series()
    present = series.names()
    subtasks = [name for name in present if name.startswith("val_score/")]
    boundaries = [Boundary(phase.first_step, f"phase {phase.node}") for phase in data.strategy]
    limits = (data.strategy[0].first_step, data.strategy[-1].last_step) if data.strategy else None
    figures = []
    for name in (*_CURVES, *subtasks):
        points = series.points(name)
        if not points:
            continue
        title = words.METRIC_TITLES.get(name) or f"Validation score: {name.partition('/')[2]}"
        is_score = name.startswith("val_score")
        line = Line(points, "green" if is_score else "blue", dots=is_score)
        svg = line_chart(title, [line], x_label="step of the strategy", x_limits=limits, boundaries=boundaries)
        figures.append(Figure(title, svg))
    return tuple(figures)


def progress_charts(data: ReportData) -> tuple[Figure, ...]:
    """Best validation score so far against iterations and against compute, each phase a dot."""
    figures = []
    for title, label, x_of in (
        ("Best score so far, by iteration", "iteration", lambda point: float(point.iteration)),
        ("Best score so far, by compute", data.device_unit, lambda point: point.device_hours),
    ):
        best = [(x_of(point), point.best) for point in data.progress if point.best is not None]
        single = [(x_of(point), point.score) for point in data.progress if point.score is not None]
        lines = [Line(best, "green", stepped=True), Line(single, "blue", joined=False)]
        svg = line_chart(title, lines, x_label=label, whole=label == "iteration", width=420)
        if svg:
            figures.append(Figure(title, svg))
    return tuple(figures)


def parameter_classes(data: ReportData) -> tuple[ParameterClassView, ...]:
    """The classes of hyperparameters in their order, each with its charts of what changes."""
    phases = [phase.node for phase in data.strategy]
    views = []
    for key, (title, meaning) in _CLASS_TITLES.items():
        members = [item for item in data.trajectories if item.parameter_class == key]
        if not members:
            continue
        changed = tuple(item for item in members if not item.is_constant)
        charts = tuple((item, svg) for item in changed if (svg := trajectory_chart(item, phases)))
        constant = tuple(item for item in members if item.is_constant)
        views.append(ParameterClassView(title, meaning, charts, changed, constant))
    return tuple(views)
