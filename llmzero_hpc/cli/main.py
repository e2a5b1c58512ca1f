"""Entry point: the commands, and what becomes of errors (one line, a next step, a documented exit code)."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from llmzero_hpc import __version__
from llmzero_hpc.cli import control, create, look, run
from llmzero_hpc.errors import LLMZeroError

app = typer.Typer(
    name="llmzero-hpc",
    help="Search over GRPO training trajectories: a tree of training phases, each resuming another's adapter.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


create.register(app)
run.register(app)
look.register(app)
control.register(app)


def main() -> None:
    """Run a command; a `LLMZeroError` ends it with its message and exit code."""
    try:
        app()
    except LLMZeroError as error:
        sys.stderr.write(f"error: {error.message}\n")
        if error.next_step:
            sys.stderr.write(f"  next: {error.next_step}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # the reader of our output has gone (`| head`); Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
