"""`prompts check`: what language models would be told, and what is wrong with prompts of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmzero_hpc.store.atomic import make_folder, write_bytes

if TYPE_CHECKING:
    from llmzero_hpc.agents.llm.prompts import Prompt


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="What language models are told: the templates in prompts/, or your own.", rich_markup_mode=None
    )
    group.callback()(_group)
    group.command()(check)
    app.add_typer(group, name="prompts")


def _group() -> None:
    """Without it, typer would take the only command for the group itself."""


def check(
    own: Annotated[
        Path | None, typer.Option("--own", metavar="FOLDER", help="Folder with your versions of templates.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write the prompts and their pictures there, to read."),
    ] = None,
) -> None:
    """Render every prompt on made-up requests; says which templates are yours, and what they leave out."""
    from llmzero_hpc.agents.llm import trial

    for file in trial.own_files(own) if own is not None else ():
        typer.echo(f"yours: {file.name}" + (f"  leaves out: {', '.join(file.left_out)}" if file.left_out else ""))
    for item in trial.render_all(own, vision=out is not None):
        name = f"{item.agent} ({item.situation})"
        typer.echo(f"{name:<42} about {item.prompt.estimated_tokens} tokens of text at most")
        if out is not None:
            _write(out / item.agent / item.situation.replace(" ", "_"), item.prompt)
    if out is not None:
        typer.echo(f"  next: read them in {out}")


def _write(folder: Path, prompt: Prompt) -> None:
    make_folder(folder)
    files = {"system.md": prompt.system.encode(), "user.md": prompt.user.encode()}
    for name, content in {**files, **{image.name: image.png for image in prompt.images}}.items():
        write_bytes(folder / name, content)
