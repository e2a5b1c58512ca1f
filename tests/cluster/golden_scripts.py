"""Job scripts that are compared to the letter; `python tests/cluster/golden_scripts.py` writes them anew."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from llmzero_hpc.cluster.base import JobRequest
from llmzero_hpc.cluster.job_script import job_script
from llmzero_hpc.cluster.profiles import read_profile
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.settings_file import parsed
from llmzero_hpc.trainers.base import LaunchPlan

FOLDER = Path(__file__).parent / "golden"
PROFILES = FOLDER / "profiles.yaml"
NAMES = tuple(parsed(PROFILES.read_text(encoding="utf-8"), "", ""))
ATTEMPT = Path("/project/my state/demo-2/phases/0003/attempts/2")


def golden_script(name: str) -> str:
    """The script of an attempt under a profile; under `everything`, the search's settings are not the default."""
    profile = read_profile(name, PROFILES)
    everything = name == "everything"
    request = JobRequest(
        name="lz-demo-2-k3j4-0003-2",
        directory=ATTEMPT,
        plan=LaunchPlan(("train",)),
        attempt=2,
        devices=profile.gpus or 4,
        gpus=profile.gpus > 0,
        time_limit_seconds=90.0 if everything else None,
        nodes=profile.nodes,
        avoid="node[1-2]" if everything else "",
    )
    settings = SlurmClusterConfig(kind="slurm", nice=100 if everything else 0)
    with mock.patch("sys.executable", "/home/me/.venv/bin/python3"):
        return job_script(request, profile, settings).text(ATTEMPT / "submission")


if __name__ == "__main__":
    for name in NAMES:
        (FOLDER / f"{name}.sh").write_text(golden_script(name), encoding="utf-8")
