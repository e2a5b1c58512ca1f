"""The controller by cron: lines for crontab and for scrontab, each of which makes one tick at a time."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.controller_job import placement
from llmzero_hpc.cluster.profiles import PLACE_VARIABLE
from llmzero_hpc.cluster.slurm_commands import COMMANDS
from llmzero_hpc.controller.hosts_login import log_file

if TYPE_CHECKING:
    from llmzero_hpc.store.search_directory import SearchDirectory

CRON_MINUTES = 5
_KEPT = ("SLURM_CONF", PLACE_VARIABLE)
"""Variables without which the controller would find another cluster, or none."""


@dataclass(frozen=True, slots=True)
class CronLines:
    """What to install with `crontab -e`, or else with `scrontab -e`; the latter is empty without Slurm."""

    crontab: str
    scrontab: str


def cron_lines(directory: SearchDirectory) -> CronLines:
    """Lines that work in the bare environment which cron gives them.

    Raises:
        ConfigurationError: the cluster profile is wrong.
    """
    every = f"*/{CRON_MINUTES} * * * *"
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in {"PATH": _path(), **kept}.items())
    root = shlex.quote(str(directory.root))
    command = f"env {variables} {shlex.quote(sys.executable)} -m llmzero_hpc.cli.main drive {root} --once"
    log = log_file(directory)
    # cron takes % for the end of the line
    crontab = f"{every} {command} >>{shlex.quote(str(log))} 2>&1".replace("%", r"\%")
    if shutil.which("scrontab") is None:
        return CronLines(crontab, "")
    options = ["--time=10", "--cpus-per-task=1", "--mem=1G", "--open-mode=append", *placement(directory)]
    options.append("--output=" + str(log).replace("%", "%%"))
    return CronLines(crontab, f"#SCRON {' '.join(options)}\n{every} {command}")


def _path() -> str:
    """Where cron's own PATH does not look: this cluster's commands."""
    places = [str(Path(found).parent) for name in (*COMMANDS, "mail", "sendmail") if (found := shutil.which(name))]
    return ":".join(dict.fromkeys([*places, "/usr/local/bin", "/usr/bin", "/bin"]))
