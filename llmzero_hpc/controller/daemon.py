"""The loop over ticks: lease, heartbeat, signals. `run`, `tick` and every host of the controller share it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from llmzero_hpc.baselines.registry import make_agents
from llmzero_hpc.cluster.controller_job import own_job
from llmzero_hpc.cluster.registry import make_cluster
from llmzero_hpc.controller.desk import Desk
from llmzero_hpc.controller.house import House
from llmzero_hpc.controller.notify import Moment, Notice, Notifier, channels
from llmzero_hpc.controller.server import server_for
from llmzero_hpc.controller.submission import Submission
from llmzero_hpc.controller.tick import Controller, Outcome
from llmzero_hpc.controller.views import Views
from llmzero_hpc.errors import LeaseError, LLMZeroError, StorageError
from llmzero_hpc.sections import LocalClusterConfig
from llmzero_hpc.store import control
from llmzero_hpc.store.daemon_file import Heartbeat, read_heartbeat, write_heartbeat
from llmzero_hpc.store.lease import Lease
from llmzero_hpc.store.process import boot_id
from llmzero_hpc.trainers.registry import make_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from llmzero_hpc.store.search_directory import SearchDirectory


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that end a controller in order; the last is how a cluster announces the end of the controller's job."""
_LOOK_SECONDS = 2.0
"""How often a controller that waits for its next tick looks for a request to stop."""
_LONGEST_PAUSE_SECONDS = 300.0
"""Between two tries of a tick that the file system refuses."""
_MOST_DOUBLINGS = 32
"""Of the pause: an outage of weeks is no number that a float does not hold."""


@dataclass(frozen=True, slots=True)
class LoopEnd:
    """Why a loop returned: the search is over, someone asked for it, or a signal came."""

    finished: bool
    reason: str
    signal: int | None = None


class Daemon:
    """A controller with its lease and heartbeat. Use as a context manager; leaving it ends no phase.

    Args:
        directory: the search.
        take_over: take it from whoever drives it.
        by_cron: it makes one tick, and cron will start the next.
        clock: seconds since the epoch.

    Raises:
        LeaseError: another controller holds the search.
        ConfigurationError, MissingDependencyError: its agents cannot work here.
    """

    def __init__(
        self,
        directory: SearchDirectory,
        *,
        take_over: bool = False,
        by_cron: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        config = directory.record.config
        agents = make_agents(config, directory)
        self._directory = directory
        self._name = config.name
        self._clock = clock
        self._by_cron = by_cron
        self._wake = threading.Event()
        self._signal: int | None = None
        self._started_at = clock()
        self._ticks = 0
        before = read_heartbeat(directory)
        self._error_since = before.error_since if before else None
        self._job = own_job()
        self._lease = Lease.acquire(
            directory,
            job=self._job,
            take_over=take_over,
            # Phases on a machine itself can be seen from there only: to others they look as if they had ended.
            after_silence=not isinstance(config.cluster, LocalClusterConfig),
        )
        former = self._lease.former
        if by_cron or self._job is None or former is None or not self._job.continues(former.job):
            control.clear_stop(directory)  # a request from before is not meant for this controller
        trainer = make_trainer(config.trainer)
        self._cluster = cluster = make_cluster(config, directory.root)
        self.views = Views(directory.root, live=config.live_views)
        self._notifier = Notifier(directory, channels(config.notify, os.environ), clock)
        self._agents = agents
        self._desk = Desk()
        self._server = server_for(directory, agents, self._lease.check)
        self._house = House(
            directory=directory,
            lease=self._lease,
            cluster=cluster,
            trainer=trainer,
            agents=agents,
            desk=self._desk,
            submission=Submission(directory, cluster, trainer, clock, self._lease.check),
            views=self.views,
            clock=clock,
            server=self._server,
        )
        self.controller = Controller(self._house)
        self._refused_ticks = 0
        self.storage_problem = ""
        """What the file system said when it refused the last tick of `loop`; empty where it did not."""

    def __enter__(self) -> Self:
        """Itself; the lease is held since construction."""
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Let go of the lease; running phases go on. People are told of an error that ends the controller."""
        self._desk.close()
        if self._server is not None:
            self._server.close()
        lost = isinstance(error, LeaseError)
        if isinstance(error, Exception):
            why = error.message if isinstance(error, LLMZeroError) else f"a bug ({type(error).__name__})"
            key = f"lost-{self._lease.token}" if lost else f"ended-{why}"
            self._notifier.tell(Notice(key, f"The controller of {self._name} on {socket.gethostname()} ended: {why}."))
        with suppress(StorageError) if error else nullcontext():
            self._notifier.close(ours=not lost)
        self._lease.release()

    @property
    def calls(self) -> Mapping[str, int]:
        """Questions and orders to the cluster so far, by the cluster's name for them."""
        return Counter(self._cluster.calls) + Counter(self._server.calls if self._server else {})

    def tick(self) -> Outcome:
        """One tick, and the heartbeat that tells of it."""
        if self._server is not None and self._server.came_up():
            self._desk.ask_again()
        outcome = self.controller.tick()
        if self._server is not None and outcome.finished:
            self._server.leave()
        elif self._server is not None:
            self._server.keep(self.controller.account().device_seconds_left)
        self._ticks += 1
        self._beat(outcome)
        self._notifier.look(self._moment(outcome))
        return outcome

    def tick_alone(self) -> Outcome:
        """A tick after which nobody is there to take answers, so it is repeated until every agent has given its own."""
        outcome = self.tick()
        while self._desk.is_busy and not outcome.stop_requested:
            self._desk.wait(self._directory.record.config.tick_seconds)
            outcome = self.tick()
        return outcome

    def loop(self, after_tick: Callable[[Outcome], None] | None = None, *, outlasts_storage: bool = False) -> LoopEnd:
        """Tick until the search is over or someone asks to stop. Signals (`ENDING`) end it after the current tick.

        Args:
            after_tick: is told what each tick left behind.
            outlasts_storage: try again for as long as the file system refuses: nobody is there to start it anew.

        Raises:
            LeaseError: another controller took the search over.
            StorageError: the file system refused, and it is not to be outlasted.
        """
        previous = {number: signal.signal(number, self._on_signal) for number in ENDING}
        try:
            while True:
                outcome = self._patient_tick() if outlasts_storage else self.tick()
                if after_tick is not None:
                    after_tick(outcome)
                if outcome.finished:
                    return LoopEnd(finished=True, reason=outcome.waiting_for)
                if outcome.stop_requested:
                    return LoopEnd(finished=False, reason="stopped on request")
                self._rest()
                if self._signal is not None:
                    return LoopEnd(finished=False, reason="interrupted", signal=self._signal)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _patient_tick(self) -> Outcome:
        """A tick; one that the file system refuses is tried again later, from what is on disk by then."""
        try:
            if self._refused_ticks:
                self.controller = Controller(self._house)
            outcome = self.tick()
        except StorageError as error:
            self._refused_ticks += 1
            self.storage_problem = f"{error.message}; tried again in {self._pause_seconds:.0f} s"
            if self._pause_seconds >= _LONGEST_PAUSE_SECONDS:
                text = f"The controller of {self._name} on {socket.gethostname()} waits: {error.message}."
                self._notifier.tell(Notice(f"storage-{self._lease.token}", text))
            return Outcome(finished=False, stop_requested=False, waiting_for=self.storage_problem)
        self._refused_ticks, self.storage_problem = 0, ""
        return outcome

    @property
    def _pause_seconds(self) -> float:
        tick_seconds = self._directory.record.config.tick_seconds
        doublings = min(self._refused_ticks, _MOST_DOUBLINGS)
        return min(tick_seconds * 2.0**doublings, max(tick_seconds, _LONGEST_PAUSE_SECONDS))

    def _rest(self) -> None:
        """Until the next tick is due, a signal came, or somebody asked for the end."""
        until = time.monotonic() + self._pause_seconds
        while (left := until - time.monotonic()) > 0:
            if self._wake.wait(min(left, _LOOK_SECONDS)):
                return
            if self.storage_problem:
                continue  # no tick could serve a request to stop; a signal ends it
            with suppress(StorageError):
                if control.stop_request(self._directory) is not None:
                    return

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        self._wake.set()

    def _moment(self, outcome: Outcome) -> Moment:
        account = self.controller.account()
        return Moment(
            now=self._clock(),
            tree=self.controller.tree,
            finished=outcome.finished,
            paused=control.is_paused(self._directory),
            refusal=(account.refusal or "") if account.iterations_left > 0 else "",
            words=self.controller.words(),
            error=self.controller.cluster_error,
            error_since=self._error_since,
        )

    def _beat(self, outcome: Outcome) -> None:
        error = self.controller.cluster_error
        if not error:
            self._error_since = None
        elif self._error_since is None:
            self._error_since = self._clock()
        spending = self._agents.spending()
        heartbeat = Heartbeat(
            host=socket.gethostname(),
            pid=os.getpid(),
            boot_id=boot_id(),
            started_at=self._started_at,
            beat_at=self._clock(),
            ticks=self._ticks,
            last_error=error,
            calls=dict(self.calls),
            waiting_for=outcome.waiting_for,
            job_id=self._job.job_id if self._job else "",
            by_cron=self._by_cron,
            error_since=self._error_since,
            api_dollars=spending.dollars,
            api_calls=spending.calls,
            api_tokens=spending.tokens,
            server=self._server.words if self._server else "",
            server_device_seconds=self._server.device_seconds if self._server else 0.0,
            server_devices=self._server.devices if self._server else 0,
        )
        write_heartbeat(self._directory, heartbeat)
