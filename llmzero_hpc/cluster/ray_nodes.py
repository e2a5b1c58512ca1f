"""`python -m llmzero_hpc.cluster.ray_nodes NODES SECONDS`: wait until so many machines have joined Ray.

Exits with 0 when they have, else with 1 and one line for people. Ray is where RAY_ADDRESS says.
"""

from __future__ import annotations

import logging
import sys
import time

_POLL_SECONDS = 0.5


def main() -> int:
    """Wait for the machines that the command line names."""
    import ray

    nodes, seconds = int(sys.argv[1]), float(sys.argv[2])
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    deadline = time.monotonic() + seconds
    while True:
        joined = sorted(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])
        if len(joined) >= nodes:
            return 0
        if time.monotonic() > deadline:
            names = ", ".join(joined)
            print(f"Ray has {len(joined)} of {nodes} machines after {seconds:g} seconds: {names}")  # noqa: T201
            return 1
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
