"""Free ports in a row, for daemons that are told a number before they start."""

from __future__ import annotations

import errno
import random
import socket

# Below those that the kernel gives to clients, so that none of them takes one in between.
_LOWEST, _HIGHEST = 12_000, 32_000


class PortBlock:
    """A row of TCP ports of 127.0.0.1 that nobody listens on, ours among all processes on this machine until `close`.

    Attributes:
        first: the first of them.
    """

    def __init__(self, size: int) -> None:
        draw = random.Random()
        while True:
            self.first = size * draw.randrange(_LOWEST // size, _HIGHEST // size)
            # An abstract address exists once on a machine, and ends with its process.
            self._claim = socket.socket(socket.AF_UNIX)
            if _bound(self._claim, f"\0slurm-test-ports-{size}-{self.first}") and self._is_free(size):
                return
            self._claim.close()

    def _is_free(self, size: int) -> bool:
        for port in range(self.first, self.first + size):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if not _bound(probe, ("", port)):
                    return False
        return True

    def close(self) -> None:
        """Give them back."""
        self._claim.close()


def _bound(stream: socket.socket, address: str | tuple[str, int]) -> bool:
    try:
        stream.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True
