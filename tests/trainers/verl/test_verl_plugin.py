"""What is put right in VeRL, where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

pytestmark = [pytest.mark.verl, pytest.mark.slow]

NAMES = """
import ray
import llmzero_hpc.trainers.verl.plugin

def name():
    import llmzero_hpc.trainers.verl.plugin
    return ray.get_runtime_context().get_job_id()

ray.init(num_cpus=1, include_dashboard=False)
print("names:", name(), ray.get(ray.remote(name).remote()))
"""


def test_weights_of_phases_on_one_machine_do_not_go_the_same_way(
    in_verl: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """VeRL calls its sockets after the job's number in Ray, and each phase is the first job of a Ray of its own."""
    found = set()
    for _ in range(2):
        done = in_verl("-c", NAMES)
        assert done.returncode == 0, done.stderr[-2000:]
        line = next(line for line in done.stdout.splitlines() if line.startswith("names:"))
        _, trainer, server = line.split()
        assert trainer == server
        found.add(trainer)
    assert len(found) == 2
