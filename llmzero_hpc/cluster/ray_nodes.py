"""`python -m llmzero_hpc.cluster.ray_nodes NODES SECONDS`: wait until so many machines answer in a Ray cluster.

Exits with 0 when they do, else with 1 and one line for people. Ray is where RAY_ADDRESS says.
"""

from __future__ import annotations

import logging
import socket
import sys
import time

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 15.0


def main() -> int:
    """Wait for the machines that the command line counts."""
    import ray

    nodes, seconds = int(sys.argv[1]), float(sys.argv[2])
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    deadline = time.monotonic() + seconds
    while True:
        machines = _answering()
        if len(machines) >= nodes:
            return 0
        if time.monotonic() > deadline:
            names = ", ".join(machines)
            print(f"Ray has {len(machines)} of {nodes} machines after {seconds:g} seconds: {names}")  # noqa: T201
            return 1
        time.sleep(_POLL_SECONDS)


def _answering() -> list[str]:
    """Names of the machines that carry out a task: Ray counts one that died as alive for half a minute."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = ray.remote(num_cpus=0)(_own_name)
    tasks = [
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in ray.nodes()
        if node["Alive"]
    ]
    answered, _ = ray.wait(tasks, num_returns=len(tasks), timeout=_ANSWER_SECONDS) if tasks else ([], [])
    names = []
    for task in answered:
        try:
            names.append(str(ray.get(task)))
        except ray.exceptions.RayError:
            continue  # it died while it was asked
    return sorted(names)


def _own_name() -> str:
    return socket.gethostname()


if __name__ == "__main__":
    sys.exit(main())
