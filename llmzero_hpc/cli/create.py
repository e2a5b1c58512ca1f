"""`init`: files to start from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.store.atomic import make_folder, refusals, write_bytes

_TEMPLATES = files("llmzero_hpc.cli") / "templates"


def template(kind: str, name: str) -> str:
    """The text of a shipped starting file."""
    return (_TEMPLATES / kind / name).read_text(encoding="utf-8")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write.")] = Path(),
    own_data: Annotated[
        bool, typer.Option("--own-data", help="For your own model and data: with a reward file and sample rows.")
    ] = False,
    rehearsal: Annotated[
        bool, typer.Option("--rehearsal", help="For a rehearsal: nothing is trained, scores are made up.")
    ] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="For a Slurm cluster: with cluster profiles.")] = False,
) -> None:
    """Write a search.yaml to start from; nothing that is there is overwritten."""
    chosen = [
        name
        for name, is_chosen in (("--own-data", own_data), ("--rehearsal", rehearsal), ("--slurm", slurm))
        if is_chosen
    ]
    if len(chosen) > 1:
        raise ConfigurationError(f"{' and '.join(chosen)} exclude each other", "choose one")
    if folder.is_file():
        raise ConfigurationError(f"{folder} is a file, not a folder", "choose another: `llmzero-hpc init FOLDER`")
    kind = "own" if own_data else "rehearsal" if rehearsal else "slurm" if slurm else "chains"
    names = sorted(entry.name for entry in (_TEMPLATES / kind).iterdir())
    for name in names:
        with refusals("reading", folder):
            taken = (folder / name).exists()
        if taken:
            raise ConfigurationError(
                f"{folder / name} is there already", "choose another folder: `llmzero-hpc init FOLDER`"
            )
    make_folder(folder)
    for name in names:
        write_bytes(folder / name, template(kind, name).encode())
        typer.echo(f"wrote {folder / name}")
    settings = folder / "search.yaml"
    if slurm:
        typer.echo(f"  next: put your account and partition into {folder / 'profiles.yaml'}, then one by one")
        for step in ("doctor {}", "run {} --dry-run", "start {}"):
            typer.echo(f"    llmzero-hpc {step.format(settings)}")
        return
    first = "say where your model and data are" if own_data else "read it"
    typer.echo(f"  next: {first}, then `llmzero-hpc run {settings} --dry-run`")
