"""A comparison: searches in subfolders of one folder, one for each method and seed, driven until all are over."""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from llmzero_hpc import settings_file
from llmzero_hpc.analysis.comparison import Comparison, Run, compared, run_of
from llmzero_hpc.baselines.registry import check_method
from llmzero_hpc.config import NAME_PATTERN, SearchConfig, changed_settings, load
from llmzero_hpc.controller.apart import apart
from llmzero_hpc.controller.creation import checked, opened_or_created
from llmzero_hpc.controller.daemon import Daemon
from llmzero_hpc.errors import ConfigurationError, SearchNotFoundError
from llmzero_hpc.method_sections import MethodConfig, TransferMethod
from llmzero_hpc.mistakes import Mistake, closest, explained
from llmzero_hpc.report.data import SearchState
from llmzero_hpc.report.reading import read
from llmzero_hpc.search.configuration import Bounds
from llmzero_hpc.search.strategy_cost import Cost, measured
from llmzero_hpc.sections import Budget, Section
from llmzero_hpc.store import control
from llmzero_hpc.store.agent_calls import CallLog, Spending
from llmzero_hpc.store.search_directory import SearchDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_UNLIMITED = 100_000
"""Iterations where compute is the limit."""
_NEXT_STEP = "docs/methods.md shows a comparison"


def _labelled(value: Any) -> Any:
    """`[llmzero, random]` is short for `{llmzero: llmzero, random: random}`."""
    return {str(one): one for one in value} if isinstance(value, list) else value


Label = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,23}$")]


class Changes(Section):
    """Settings of `search.yaml` that one method changes: what an ablation leaves out, or whom its agents ask."""

    rules: dict[str, Any] = Field(default_factory=dict)
    """Keys of `rules`."""
    early_stop: dict[str, Any] = Field(default_factory=dict)
    """Keys of `early_stop`."""
    agents: dict[str, Any] = Field(default_factory=dict)
    """Keys of `agents`; where those are of another kind, all of them."""
    max_parallel_phases: int | None = None
    """Phases in flight at once."""

    def settings(self) -> dict[str, Any]:
        """What is changed, by its key in `search.yaml`."""
        return {key: value for key in type(self).model_fields if (value := getattr(self, key))}

    def words(self) -> str:
        """For people: `early_stop.enabled: false`."""
        flat = {
            f"{key}.{name}" if isinstance(value, dict) else key: one
            for key, value in self.settings().items()
            for name, one in (value.items() if isinstance(value, dict) else ((key, value),))
        }
        return ", ".join(f"{key}: {str(one).lower() if isinstance(one, bool) else one}" for key, one in flat.items())


class ComparisonPlan(Section):
    """The content of `compare.yaml`."""

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """Of the comparison, and of its folder."""
    search: Path
    """A `search.yaml`: task, model, start, bounds and cluster are the same for all methods."""
    methods: Annotated[dict[Label, MethodConfig], BeforeValidator(_labelled), Field(min_length=1)]
    """Methods by the name that they get in the table; a list of names where none needs settings."""
    changes: dict[Label, Changes] = Field(default_factory=dict)
    """Settings of `search` that differ for single methods: ablations, phases in flight, other agents."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)]
    """Each method is run once with each."""
    fresh_seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = ()
    """The strategy of each method's best validation score is trained anew with each, once all searches are over."""
    budget: Budget
    """Of each search. With `device_hours`, `iterations` is no limit unless it is given as well."""
    reference: str | None = None
    """The method that the others are compared with; none is the first."""
    at_once: Annotated[int, Field(ge=1, le=64)] = 1
    """Searches that are driven side by side."""

    @model_validator(mode="after")
    def _can_be_compared(self) -> ComparisonPlan:
        if self.reference is not None and self.reference not in self.methods:
            raise Mistake(f"reference: {self.reference!r} is no method here", closest(self.reference, self.methods))
        for label in self.changes:
            if label not in self.methods:
                raise Mistake(f"changes: {label!r} is no method here", closest(label, self.methods))
        for key, seeds in (("seeds", self.seeds), ("fresh_seeds", self.fresh_seeds)):
            if len(set(seeds)) != len(seeds):
                raise Mistake(f"{key}: one stands twice", "give each seed once")
        if seen := sorted(set(self.seeds) & set(self.fresh_seeds)):
            raise Mistake(f"fresh_seeds: {seen[0]} is not fresh", "winners are confirmed on seeds that chose nothing")
        if not {"device_hours", "iterations"} & self.budget.model_fields_set:
            raise Mistake("budget.device_hours is missing", "all methods get the same compute: say how much")
        return self

    @property
    def compared_with(self) -> str:
        """The reference."""
        return self.reference or next(iter(self.methods))


@dataclass(frozen=True, slots=True)
class Member:
    """One search of a comparison."""

    method: str
    config: SearchConfig
    changes: str = ""
    """How it differs from `search` besides its method, for people."""

    @property
    def is_static(self) -> bool:
        """Its strategies have one phase."""
        method = self.config.method
        return not method.adaptive or (isinstance(method, TransferMethod) and len(method.phases) == 1)


def read_plan(path: Path) -> ComparisonPlan:
    """Read and check a `compare.yaml`; the search's path is taken from its folder.

    Raises:
        ConfigurationError: it is not there, not YAML, or wrong somewhere; the message says where.
    """
    data = settings_file.parsed(settings_file.read_text(path, _NEXT_STEP), str(path), _NEXT_STEP)
    try:
        plan = ComparisonPlan.model_validate(data)
    except ValidationError as error:
        message, next_step = explained(error.errors(), ComparisonPlan, _NEXT_STEP)
        raise ConfigurationError(f"{path}: {message}", next_step) from None
    return plan.model_copy(update={"search": path.resolve().parent / plan.search.expanduser()})


def members(plan: ComparisonPlan) -> tuple[Member, ...]:
    """The searches of a comparison, seed by seed, so that what is there early has all methods in it.

    Raises:
        ConfigurationError: `search` is wrong, or its scores could not be compared.
    """
    base = load(plan.search)
    if base.bounds.get("max_response_length", Bounds()).high is None:
        raise ConfigurationError(
            f"{plan.search}: bounds.max_response_length.high is missing",
            "methods compare only where all are validated at one limit: set it to the longest response allowed",
        )
    budget = plan.budget.model_copy(update={"includes_test": False})
    if "iterations" not in budget.model_fields_set:
        budget = budget.model_copy(update={"iterations": _UNLIMITED})
    bases = {
        label: changed_settings(base, own.settings(), f"changes.{label}", plan.search.parent)
        for label, own in plan.changes.items()
    }
    return tuple(
        replace(
            member(bases.get(label, base), label, method, seed, budget),
            changes=", ".join(filter(None, (method.words(), plan.changes.get(label, Changes()).words()))),
        )
        for seed in plan.seeds
        for label, method in plan.methods.items()
    )


def member(base: SearchConfig, label: str, method: Any, seed: int, budget: Budget) -> Member:
    """A search with the base's task, by a method, on a seed."""
    changes = {"name": f"{label}-s{seed}", "seed": seed, "method": method, "budget": budget, "live_views": False}
    return Member(label, base.model_copy(update=changes))


def opened(searches: Iterable[Member], folder: Path) -> tuple[tuple[Member, SearchDirectory], ...]:
    """Every search of a comparison, created where it is new; what they share is checked once.

    Raises:
        ConfigurationError, MissingDependencyError, StorageError: as `creation.opened_or_created`.
    """
    rows: list[int] = []

    def check(config: SearchConfig) -> int:
        if not rows:
            rows.append(apart(checked, config))
        check_method(config)
        return rows[0]

    found = []
    for one in searches:
        directory = opened_or_created(one.config, folder / one.config.name, time.time(), check)
        found.append((replace(one, config=directory.record.config), directory))
    return tuple(found)


def existing(searches: Iterable[Member], folder: Path) -> tuple[tuple[Member, SearchDirectory], ...]:
    """Those searches of a comparison that were begun.

    Raises:
        SearchNotFoundError: none was.
    """
    found = []
    for one in searches:
        if (folder / one.config.name).is_dir():
            directory = SearchDirectory.open(folder / one.config.name)
            found.append((replace(one, config=directory.record.config), directory))
    if not found:
        raise SearchNotFoundError(f"{folder} holds no search of this comparison", "leave --look out to begin it")
    return tuple(found)


def drive(
    directories: Iterable[SearchDirectory],
    at_once: int,
    say: Callable[[SearchDirectory, str], None],
    rest: Callable[[float], None] = time.sleep,
) -> None:
    """Drive searches to their ends, some at a time; stopping it at any instant loses nothing.

    A search that was paused, or asked to stop, is left as it is. `say` is told what happens to each.

    Raises:
        LeaseError, StorageError: as `Daemon`; the others are let go of in order.
    """
    waiting = deque(directories)
    with ExitStack() as all_driven:
        driven: list[tuple[SearchDirectory, Daemon, ExitStack]] = []
        while waiting or driven:
            while waiting and len(driven) < at_once:
                directory = waiting.popleft()
                if is_over(directory):
                    continue
                own = all_driven.enter_context(ExitStack())
                driven.append((directory, own.enter_context(Daemon(directory)), own))
                say(directory, "goes on")
            for place in tuple(driven):
                directory, daemon, own = place
                outcome = daemon.tick()
                paused = control.is_paused(directory) and not daemon.controller.tree.active()
                if outcome.finished or outcome.stop_requested or paused:
                    own.close()
                    driven.remove(place)
                    say(directory, "is over" if outcome.finished else "was stopped" if not paused else "is paused")
            if driven:
                rest(min(directory.record.config.tick_seconds for directory, _, _ in driven))


def comparison(searches: Iterable[tuple[Member, SearchDirectory]], reference: str, cost: Cost = measured) -> Comparison:
    """What the searches have come to so far; `cost` counts compute in another way than by the clock."""
    return compared([_run(one, directory, cost) for one, directory in searches], reference)


def _run(one: Member, directory: SearchDirectory, cost: Cost) -> Run:
    config = directory.record.config
    return run_of(
        directory.read_tree(),
        method=one.method,
        seed=one.config.seed,
        is_static=one.is_static,
        is_over=is_over(directory),
        cost=cost,
        slots=config.max_parallel_phases,
        devices=config.hardware.devices,
        spending=sum(CallLog(directory).spending().values(), start=Spending()),
    )


def is_over(directory: SearchDirectory) -> bool:
    """The search has ended, its test score included."""
    return read(directory, metrics=()).state is SearchState.FINISHED
