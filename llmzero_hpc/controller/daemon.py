"""The loop over ticks: lease, heartbeat, signals. `run`, `tick` and every host of the controller share it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from llmzero_hpc.agents.registry import make_agents
from llmzero_hpc.cluster.registry import make_cluster
from llmzero_hpc.controller.desk import Desk
from llmzero_hpc.controller.house import House
from llmzero_hpc.controller.submission import Submission
from llmzero_hpc.controller.tick import Controller, Outcome
from llmzero_hpc.controller.views import Views
from llmzero_hpc.store import control
from llmzero_hpc.store.daemon_file import Heartbeat, write_heartbeat
from llmzero_hpc.store.lease import Lease
from llmzero_hpc.store.process import boot_id
from llmzero_hpc.trainers.registry import make_trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from llmzero_hpc.store.search_directory import SearchDirectory


@dataclass(frozen=True, slots=True)
class LoopEnd:
    """Why a loop returned: the search is over, someone asked for it, or a signal came."""

    finished: bool
    reason: str


class Daemon:
    """A controller with its lease and heartbeat. Use as a context manager; leaving it ends no phase.

    Raises on entry:
        LeaseError: another controller holds the search.
    """

    def __init__(
        self, directory: SearchDirectory, *, take_over: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._stop = threading.Event()
        self._started_at = clock()
        self._ticks = 0
        self._lease = Lease.acquire(directory, clock, take_over=take_over)
        control.take_stop_request(directory)  # one from before is not meant for this controller
        config = directory.record.config
        trainer = make_trainer(config.trainer)
        self._cluster = cluster = make_cluster(config, directory.root)
        self.views = Views(directory.root, live=config.live_views)
        self._desk = Desk()
        self.controller = Controller(
            House(
                directory=directory,
                lease=self._lease,
                cluster=cluster,
                trainer=trainer,
                agents=make_agents(config),
                desk=self._desk,
                submission=Submission(directory, cluster, trainer, clock),
                views=self.views,
                clock=clock,
            )
        )

    def __enter__(self) -> Self:
        """Itself; the lease is held since construction."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the lease; running phases go on."""
        self._desk.close()
        self._lease.release()

    @property
    def cluster_calls(self) -> int:
        """Questions and orders to the cluster so far."""
        return self._cluster.calls.total()

    def tick(self) -> Outcome:
        """One tick, and the heartbeat that tells of it."""
        outcome = self.controller.tick()
        self._ticks += 1
        self._beat(outcome)
        return outcome

    def loop(self, after_tick: Callable[[Outcome], None] | None = None) -> LoopEnd:
        """Tick until the search is over or someone asks to stop. SIGINT and SIGTERM end it after the current tick."""
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while True:
                outcome = self.tick()
                if after_tick is not None:
                    after_tick(outcome)
                if outcome.finished:
                    return LoopEnd(finished=True, reason=outcome.waiting_for)
                if outcome.stop_requested:
                    return LoopEnd(finished=False, reason="stopped on request")
                if self._stop.wait(self._directory.record.config.tick_seconds):
                    return LoopEnd(finished=False, reason="interrupted")
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _beat(self, outcome: Outcome) -> None:
        heartbeat = Heartbeat(
            host=socket.gethostname(),
            pid=os.getpid(),
            boot_id=boot_id(),
            started_at=self._started_at,
            beat_at=self._clock(),
            ticks=self._ticks,
            last_error=self.controller.cluster_error,
            calls=dict(self._cluster.calls),
            waiting_for=outcome.waiting_for,
        )
        write_heartbeat(self._directory, heartbeat)
