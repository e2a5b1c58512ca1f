"""`doctor`: proves that a search can run here."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.cli.locate import DEFAULT_STATE, StateOption
from llmzero_hpc.errors import ChecksFailedError, LLMZeroError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from llmzero_hpc.cluster.doctor_finding import Finding
    from llmzero_hpc.config import SearchConfig
    from llmzero_hpc.sections import SlurmClusterConfig


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    search: Annotated[
        Path | None, typer.Argument(metavar="SEARCH.YAML", help="Check what this search needs, too.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Cluster profile; without it the search's, or `default`.")
    ] = None,
    profiles: Annotated[Path | None, typer.Option("--profiles", help="YAML file with the profiles.")] = None,
    state: StateOption = DEFAULT_STATE,
    quick: Annotated[bool, typer.Option("--quick", help="Submit no job.")] = False,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Minutes that the job may wait in the queue.")] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prove that a search can run here: Slurm, the state folder, and what the machines of a small job see."""
    from llmzero_hpc.cluster.doctor_finding import Verdict

    found = []
    with _stoppable(), _progress() as tell:
        for finding in _findings(search, profile, profiles, state, quick=quick, wait_minutes=wait, tell=tell):
            found.append(finding)
            if not as_json:
                _print(finding)
    failed = [finding.check for finding in found if finding.verdict is Verdict.FAILED]
    if as_json:
        json.dump(
            {"ok": not failed, "checks": [dataclasses.asdict(finding) for finding in found]}, sys.stdout, indent=2
        )
        sys.stdout.write("\n")
    if failed:
        count = "1 check" if len(failed) == 1 else f"{len(failed)} checks"
        raise ChecksFailedError(f"{count} failed: {', '.join(failed)}", "do what stands below each, then run it again")


def _findings(
    search: Path | None,
    profile: str | None,
    profiles: Path | None,
    state: Path,
    *,
    quick: bool,
    wait_minutes: float,
    tell: Callable[[str], None],
) -> Iterator[Finding]:
    from llmzero_hpc.agents.doctor_endpoint import endpoint_findings
    from llmzero_hpc.cluster.doctor import examined
    from llmzero_hpc.cluster.doctor_finding import Patient
    from llmzero_hpc.cluster.doctor_storage import storage_findings
    from llmzero_hpc.cluster.profiles import read_profile
    from llmzero_hpc.config import load
    from llmzero_hpc.controller.creation import placed

    config = load(search) if search else None
    settings = _cluster(config, profile, profiles)
    if config is not None:
        config = placed(config if settings is None else config.model_copy(update={"cluster": settings}))
        yield _search(config, tell)
        yield from endpoint_findings(config)
    if settings is None:
        yield from storage_findings(state, config.housekeeping.free_gb if config else 0.0, shared=False)
        return
    patient = Patient(read_profile(settings.profile, settings.profiles), settings, state, config)
    yield from examined(patient, job=not quick, wait_seconds=60 * wait_minutes, tell=tell)


def _cluster(config: SearchConfig | None, profile: str | None, profiles: Path | None) -> SlurmClusterConfig | None:
    """The Slurm cluster that is meant; None for a search on this machine."""
    from llmzero_hpc.sections import SlurmClusterConfig

    stated = config.cluster if config else SlurmClusterConfig(kind="slurm")
    if not isinstance(stated, SlurmClusterConfig):
        if profile is None and profiles is None:
            return None
        stated = SlurmClusterConfig(kind="slurm")
    chosen = {"profile": profile, "profiles": profiles.absolute() if profiles else None}
    return stated.model_copy(update={key: value for key, value in chosen.items() if value is not None})


def _search(config: SearchConfig, tell: Callable[[str], None]) -> Finding:
    """What creating the search would check on this machine."""
    from llmzero_hpc.cluster.doctor_finding import Finding, Verdict
    from llmzero_hpc.controller.apart import apart
    from llmzero_hpc.controller.creation import checked

    tell("Checking model, data and reward")
    try:
        rows = apart(checked, config)
    except LLMZeroError as error:
        return Finding("search.yaml", Verdict.FAILED, error.message, error.next_step)
    return Finding("search.yaml", Verdict.OK, f"packages, model, data and reward are fine here; {rows} training rows")


def _print(finding: Finding) -> None:
    typer.echo(f"{finding.verdict.value:<8} {finding.check:<17}{finding.message}")
    if finding.next_step and finding.verdict.value != "ok":
        typer.echo(f"{'':<9}{'':<17}next: {finding.next_step}")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is being waited for."""
    from rich.console import Console

    console = Console(stderr=True)
    status = console.status("Checking") if console.is_terminal else None
    with status or nullcontext():
        yield lambda what: status.update(what) if status else None


@contextmanager
def _stoppable() -> Iterator[None]:
    """A kill or a lost terminal ends the checks as Ctrl-C does, and nothing interrupts taking the job back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        # Once stopped it is deaf to its end, which a second signal must not change.
        for number, handler in () if stopped else before.items():
            signal.signal(number, handler)
