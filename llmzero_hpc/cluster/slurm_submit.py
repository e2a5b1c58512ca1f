"""The launcher: a process of its own that hands one job to sbatch, through submitit, and goes.

It leads a session of its own, so that the end of the controller does not end a call of sbatch half way, and it may be
killed at any instant: `slurm_calls` says what its folder then tells.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmzero_hpc.cluster.job_script import JobScript
from llmzero_hpc.cluster.phase_job import PhaseJob
from llmzero_hpc.cluster.slurm_calls import Fate, SubmitCall, pickup
from llmzero_hpc.cluster.slurm_commands import TIMED_OUT, is_silence, one_line
from llmzero_hpc.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

KILL_AFTER_SECONDS = 5
"""Between timeout(1)'s SIGTERM to sbatch and its SIGKILL."""

_UNLIMITED = 1_000_000
"""Time limits that submitit may survive: the phase job itself decides whether another run is worth it."""
_KILLED = 128 + signal.SIGKILL


def with_pickup(script: JobScript, folder: Path) -> JobScript:
    """The script for a submission in `folder`, which takes its pickle itself where need be."""
    setup = [pickup(folder), *script.parameters.get("setup", ())]
    return replace(script, parameters={**script.parameters, "setup": setup})


def request_of(job: PhaseJob, script: JobScript, timeout_seconds: float) -> Mapping[str, Any]:
    """What a launcher is told, as JSON takes it."""
    return {
        "job": job.request(),
        "python": script.python,
        "parameters": dict(script.parameters),
        "timeout_seconds": timeout_seconds,
    }


def submit(call: SubmitCall) -> str:
    """Make the call; what went wrong, or an empty string."""
    from submitit.slurm.slurm import SlurmExecutor

    request = json.loads(call.request_file.read_text(encoding="utf-8"))
    script = with_pickup(JobScript(request["python"], request["parameters"]), call.folder)
    accepted: list[str] = []

    class Executor(SlurmExecutor):  # type: ignore[misc]
        """Takes the ticket when all is ready, limits sbatch, and remembers the id before anything can go wrong."""

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            if not call.take(send=True):
                raise _TooLateError
            seconds = request["timeout_seconds"]
            limit = ["timeout", f"--kill-after={KILL_AFTER_SECONDS}", f"{seconds:g}"]
            return [*limit, *super()._make_submission_command(submission_file_path)]

        def _get_job_id_from_submission_command(self, string: bytes | str) -> str:
            job_id: str = super()._get_job_id_from_submission_command(string)
            accepted.append(job_id)
            return job_id

    executor = Executor(call.folder, max_num_timeout=_UNLIMITED, python=script.python)
    executor.update_parameters(**script.parameters)
    try:
        executor.submit(PhaseJob(**request["job"]))
    except _TooLateError:
        return "given up before sbatch was called"
    except Exception as error:  # noqa: BLE001 - whatever submitit met, nobody else will tell
        return _settled(call, accepted, error, request["timeout_seconds"])
    return ""


class _TooLateError(Exception):
    pass


def _settled(call: SubmitCall, accepted: list[str], error: Exception, timeout_seconds: float) -> str:
    """After an error of submitit's: the job it had accepted is kept, a refusal ends the call, all else stays open."""
    if accepted:
        fate, _ = call.accept(accepted[0])
        if fate is Fate.ACCEPTED:
            return ""
        subprocess.run(["scancel", accepted[0]], timeout=timeout_seconds, check=False)
        return f"job {accepted[0]} was accepted after the call was given up, and is cancelled"
    cause = error.__cause__
    if not isinstance(cause, subprocess.CalledProcessError):
        return f"submitit: {one_line(str(error))}"
    words = one_line(str(error))
    if cause.returncode in {TIMED_OUT, _KILLED}:
        return f"sbatch gave no answer within {timeout_seconds:g} s"
    if re.search("^(?:sbatch|timeout): ", str(error), re.MULTILINE) and not is_silence(words):
        call.give_up()
    return words or f"sbatch exited with code {cause.returncode}"


def main() -> int:
    """Submit the job whose request file is the only argument."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        problem = submit(SubmitCall(Path(sys.argv[1])))
    except (OSError, StorageError) as error:
        problem = str(error)
    if problem:
        print(problem, file=sys.stderr)  # noqa: T201 - the launcher's log
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
