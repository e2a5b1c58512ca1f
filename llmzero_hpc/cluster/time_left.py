"""How long Slurm still gives the job that asks."""

from __future__ import annotations

import math
import re
import subprocess

_PATIENCE_SECONDS = 20.0
_DURATION = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")


def seconds_left(job_id: str) -> float | None:
    """Until its time limit, which may have been changed since it started; None where Slurm does not say."""
    if not job_id:
        return None
    command = ["squeue", "--noheader", f"--jobs={job_id}", "--format=%L"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parsed_duration(answer.stdout.strip())


def parsed_duration(text: str) -> float | None:
    """Seconds of `2-01:02:03`, `01:02:03` or `2:03`; infinite for `UNLIMITED`, None for anything else."""
    if text == "UNLIMITED":
        return math.inf
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(seconds + 60 * (minutes + 60 * (hours + 24 * days)))
