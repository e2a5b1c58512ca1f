"""`run`, `tick`, `demo`: a controller in the foreground."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, SearchArgument, StateOption, locate
from llmzero_hpc.cli.watching import busy, following

if TYPE_CHECKING:
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.store.search_directory import SearchDirectory

TakeOverOption = Annotated[
    bool, typer.Option("--take-over", help="Take the search from a controller on another machine that is gone.")
]
_SUFFIXES = {".yaml", ".yml"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (run, tick, demo):
        app.command()(command)


def run(
    search: Annotated[
        str | None, typer.Argument(metavar="SEARCH.YAML|SEARCH", help="What to start, or to go on with.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and show the first phase; start nothing.")
    ] = False,
    take_over: TakeOverOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
) -> None:
    """Start a search, or go on with one, in the foreground. Ctrl-C stops the controller, not its phases."""
    if as_json and not dry_run:
        raise typer.BadParameter("--json goes with --dry-run")
    if search is None or not is_settings(search):
        if dry_run:
            raise typer.BadParameter("--dry-run needs a search.yaml: `llmzero-hpc run search.yaml --dry-run`")
        drive(locate(search, state), take_over=take_over)
        return
    from llmzero_hpc.config import load

    config = load(Path(search))
    if dry_run:
        show_plan(config, state / config.name, as_json=as_json)
        return
    drive(opened(config, state / config.name), take_over=take_over)


def tick(search: SearchArgument = None, state: StateOption = DEFAULT_STATE, take_over: TakeOverOption = False) -> None:
    """Reconcile once and return: for cron, or to see what happens next."""
    from llmzero_hpc.controller.daemon import Daemon

    with Daemon(locate(search, state), take_over=take_over) as daemon:
        outcome = daemon.tick_alone()
    stopped = "stopped on request before anything was started" if outcome.stop_requested else ""
    typer.echo(outcome.waiting_for or stopped or "the next tick decides what comes")


def demo(
    state: StateOption = DEFAULT_STATE,
    name: Annotated[str, typer.Option(help="Name of the search.")] = "demo",
    iterations: Annotated[int, typer.Option(min=1, help="Phases to train.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Another seed gives another search.")] = 0,
) -> None:
    """A whole search on this machine: real GRPO of a tiny policy on CPU, proposals by rules (no LLM, no key)."""
    from llmzero_hpc.cli.create import template
    from llmzero_hpc.config import NAME_PATTERN, load_text

    if not re.fullmatch(NAME_PATTERN, name):
        raise typer.BadParameter(f"{name!r} is no name of a search ({NAME_PATTERN})")
    settings = load_text(template("demo", "search.yaml"), "the demo's settings")
    config = settings.model_copy(
        update={"name": name, "seed": seed, "budget": settings.budget.model_copy(update={"iterations": iterations})}
    )
    typer.echo("A search over GRPO training phases. The policy is tiny, the training is real, and proposals come from")
    typer.echo("the playbook: rules over the metrics, no language model. Ctrl-C stops; the same command goes on.\n")
    drive(opened(config, state / name))


def is_settings(search: str) -> bool:
    """Whether that names a search.yaml, not a search."""
    return Path(search).suffix in _SUFFIXES


def opened(config: SearchConfig, root: Path) -> SearchDirectory:
    """The search of these settings, checked and created if it is new.

    Raises:
        ConfigurationError, MissingDependencyError, StorageError: as `opened_or_created`.
    """
    from llmzero_hpc.controller.apart import apart
    from llmzero_hpc.controller.creation import checked, opened_or_created

    _prepare_model(config)
    with busy("Checking model, data and reward"):
        return opened_or_created(config, root, time.time(), lambda config: apart(checked, config))


def _prepare_model(config: SearchConfig) -> None:
    """Build a built-in model once, where people can see that it takes a while."""
    if config.trainer == "rehearsal" or not config.model.startswith("builtin:"):
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from llmzero_hpc.controller.apart import apart
    from llmzero_hpc.tasks.models import resolve_model

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task("Warm-starting the policy (once on this machine)", total=None)
        update = lambda done, total: progress.update(bar, completed=done, total=total)  # noqa: E731
        apart(resolve_model, config.model, progress=update)


def drive(directory: SearchDirectory, *, take_over: bool = False) -> None:
    """Drive a search to its end in the foreground and show what came of it."""
    from rich.console import Console

    from llmzero_hpc.controller.daemon import Daemon
    from llmzero_hpc.report.reading import read
    from llmzero_hpc.report.terminal import strategy_view, tree_view
    from llmzero_hpc.report.views import report_file

    console = Console()
    name = directory.record.config.name
    with Daemon(directory, take_over=take_over) as daemon:
        with following(directory, console) as after_tick:
            end = daemon.loop(after_tick=lambda _outcome: after_tick())
        if not end.finished:
            console.print(f"The controller stopped ({end.reason}); running phases go on.")
            console.print(f"  next: `llmzero-hpc run {name}` takes the search up again")
            return
        with busy("Writing the report"):
            complete = daemon.views.refresh()
    data = read(directory)
    console.print()
    console.print(tree_view(data))
    console.print()
    console.print(strategy_view(data))
    if complete:
        console.print(f"Report  {report_file(directory)}", soft_wrap=True)
    else:
        console.print(f"The report is not complete; `llmzero-hpc report {name}` says why.")


def show_plan(config: SearchConfig, root: Path, *, as_json: bool) -> None:
    """Check everything and print what would happen first.

    Raises:
        ConfigurationError, MissingDependencyError, ClusterError: it would not work.
    """
    from llmzero_hpc.controller.apart import apart
    from llmzero_hpc.controller.creation import checked, placed, preview

    config = placed(config)
    _prepare_model(config)
    with busy("Checking model, data and reward"):
        rows = apart(checked, config)
    with busy("Asking the cluster"):
        job = preview(config, root, rows, time.time())
    steps = config.configuration.steps(rows)
    validations = -(-steps // config.validate_every_steps)
    plan: dict[str, Any] = {
        "name": config.name,
        "trainer": config.trainer,
        "model": config.model,
        "train_rows": rows,
        "first_phase": {
            "steps": steps,
            "validations": validations,
            "responses": steps * config.configuration.batch_size * config.configuration.rollouts,
            "configuration": config.configuration.values() | dict(config.configuration.overrides),
        },
        "budget": config.budget.model_dump(),
        "max_parallel_phases": config.max_parallel_phases,
        "devices_per_phase": config.hardware.devices,
        "job": asdict(job),
        "language_models": _expected_calls(config, validations),
    }
    if as_json:
        json.dump(plan, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    typer.echo(f"{config.name}: everything checked, nothing started.")
    typer.echo(f"  trainer {config.trainer}, model {config.model}, {rows} training rows")
    typer.echo(
        f"  node 0: {steps} steps, {validations} validations, {config.configuration.batch_size} prompts x "
        f"{config.configuration.rollouts} rollouts a step"
    )
    for key, value in config.configuration.values().items():
        typer.echo(f"    {key:<24}{value}")
    limits = {key: value for key, value in config.budget.model_dump().items() if value is not None}
    typer.echo("  budget: " + ", ".join(f"{value:g} {key.replace('_', ' ')}" for key, value in limits.items()))
    calls = plan["language_models"]
    if calls is not None:
        cost = "no prices are set" if calls["dollars"] is None else f"about ${calls['dollars']:.2f}"
        typer.echo(
            f"  language model: up to {calls['calls']} calls, {calls['input_tokens'] / 1e6:.2f} million tokens in "
            f"and {calls['output_tokens'] / 1e6:.2f} out; {cost}"
        )
    typer.echo(f"  its job, which would start {job.start} if it were submitted now:\n")
    typer.echo(job.script)
    if job.framework_command:
        typer.echo("  what trains in it:\n")
        typer.echo(" \\\n    ".join(map(shlex.quote, job.framework_command)))


def _expected_calls(config: SearchConfig, validations: int) -> dict[str, Any] | None:
    """What the agents' calls may come to, with every validation judged; None without a language model."""
    from llmzero_hpc.sections import LanguageModelAgents

    if not config.method.asks_agents or not isinstance(config.agents, LanguageModelAgents):
        return None
    from llmzero_hpc.agents.llm.ledger import estimate, estimate_conversation

    phases = config.budget.iterations
    judgements = phases * validations if config.early_stop.enabled else 0
    if config.method.kind == "skill_agent":
        return asdict(estimate_conversation(config.agents, phases - 1 + judgements))
    return asdict(estimate(config.agents, phases - 1, judgements, 0))
