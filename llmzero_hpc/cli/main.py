"""Entry point: the commands, and what becomes of errors (one line, a next step, a documented exit code)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from llmzero_hpc import __version__
from llmzero_hpc.cli import compare, control, create, diff, doctor, gc, look, prompts, replay, run, start
from llmzero_hpc.errors import LLMZeroError
from llmzero_hpc.store.atomic import storage_error

USAGE = 2
"""Exit code of a command line that cannot be understood."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, where it does not end a command in order (`run` stops its controller and exits with 0)."""

app = typer.Typer(
    name="llmzero-hpc",
    help="Search over GRPO training trajectories: a tree of training phases, each resuming another's adapter.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


create.register(app)
doctor.register(app)
run.register(app)
start.register(app)
look.register(app)
control.register(app)
gc.register(app)
prompts.register(app)
replay.register(app)
diff.register(app)
compare.register(app)


def main() -> None:
    """Run a command; whatever a user can cause ends it with one line, a next step, and a documented exit code."""
    sys.exit(_outcome())


def _outcome() -> int:
    try:
        code = app(prog_name="llmzero-hpc", standalone_mode=False)
        sys.stdout.flush()
    except LLMZeroError as error:
        return _told(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has gone (`| head`); Python would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        return _told(storage_error(error, "using", Path(os.fsdecode(error.filename))))
    except Exception as error:
        # the errors of the command line's parser have no common class over the versions of typer
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "llmzero-hpc"
        message = error.format_message().removeprefix("Invalid value: ").rstrip(".")
        sys.stderr.write(f"error: {message}\n  next: `{command} --help` shows its usage\n")
        return USAGE
    return code if isinstance(code, int) else 0


def _told(error: LLMZeroError) -> int:
    sys.stderr.write(f"error: {error.message}\n")
    if error.next_step:
        sys.stderr.write(f"  next: {error.next_step}\n")
    return error.exit_code


if __name__ == "__main__":
    main()
