"""What a profile says reaches the jobs of a real Slurm."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from cluster_contract import ended, request, until

from llmzero_hpc.cluster.base import JobState
from llmzero_hpc.cluster.profile import ClusterProfile
from llmzero_hpc.cluster.slurm import SlurmCluster
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.sections import SlurmClusterConfig

if TYPE_CHECKING:
    from pathlib import Path

    from slurm_cluster import SlurmTestCluster

SETTINGS = SlurmClusterConfig(kind="slurm", profile="mine")


@pytest.mark.usefixtures("clean_slurm")
def test_the_phase_runs_in_the_python_of_the_profile(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    profile = ClusterProfile(
        virtual_environment=tmp_path / "venv", environment={"GREETING": "it's"}, node_local=tmp_path / "local"
    )
    cluster = SlurmCluster(tmp_path / "cluster", SETTINGS, profile)
    program = "import os, sys; open('seen', 'w').write(os.environ['GREETING'] + ' ' + os.environ['TMPDIR'])"
    wanted = request(tmp_path, "lz-a-0-1", program)
    job = cluster.submit(wanted)
    assert ended(cluster, job).state is JobState.COMPLETED
    assert (wanted.directory / "seen").read_text() == f"it's {tmp_path}/local/llmzero-{job.job_id}"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].startswith("-u -m submitit.core._submit ")
    assert any(call.startswith("-c import os, sys; open('seen'") for call in calls)
    until(lambda: not any((tmp_path / "local").iterdir()), "the temporary folder is gone with its job")


def test_a_refusal_names_profile_option_and_slurms_words(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    cluster = SlurmCluster(tmp_path / "cluster", SETTINGS, ClusterProfile(partition="nowhere"))
    wanted = request(tmp_path, "lz-a-0-1", "")
    says = f"{wanted.name}: profile mine: partition: nowhere: Slurm says: "
    with pytest.raises(ClusterError, match=f"^Slurm would refuse {says}"):
        cluster.preview(wanted)
    with pytest.raises(ClusterError, match=f"^Slurm refused {says}"):
        cluster.submit(wanted)
    assert clean_slurm.jobs_in_queue() == []
