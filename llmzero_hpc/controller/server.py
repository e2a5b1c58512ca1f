"""The agents' own language model server: a job that is kept running while a search needs it.

Everything that is known of it stands in its folder (`store.server_directory`), so that the controllers of any number of
searches may keep one server together, and each of them may be killed at any instant.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from llmzero_hpc.agents.llm.serve import context_of
from llmzero_hpc.cluster.base import JobRequest, JobState
from llmzero_hpc.cluster.registry import make_cluster
from llmzero_hpc.cluster.server_job import HERE, NETWORK, write_server_script
from llmzero_hpc.cluster.server_watch import ServerWatch
from llmzero_hpc.controller.advance import JobReport, Policy, advance_attempt
from llmzero_hpc.controller.server_shape import shape_of
from llmzero_hpc.errors import ClusterError, LeaseError, LLMZeroError
from llmzero_hpc.search.node import Attempt, Ending, Job
from llmzero_hpc.sections import LanguageModelAgents, SlurmClusterConfig
from llmzero_hpc.store.marker import read_marker
from llmzero_hpc.store.server_directory import AcceptedJob, ServerDirectory, ServerEnding, ServerIntent
from llmzero_hpc.trainers.base import LaunchPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmzero_hpc.agents.base import Agents
    from llmzero_hpc.store.search_directory import SearchDirectory

_LOOK_SECONDS = 5.0
"""Between two looks at the server's files and its health, at most. The cluster is asked less often."""
_CALM_TICKS = 20
"""Ticks between two questions to the cluster about a server that answers; one that does not is asked for each tick."""
_LONGEST_PAUSE = 1800.0
"""Before a server that never came up is started anew; it doubles from one tick on."""
_SUBMISSION_SECONDS = 180.0
"""How long an intent is left to the search that made it."""
_CLOSE_SECONDS = 90.0
"""For what is under way when a controller ends: a submission at most."""
_FAULTLESS = frozenset({Ending.PREEMPTED, Ending.NODE_FAILURE, Ending.TIME_LIMIT, Ending.STOPPED})
_LOST_ITS_HOSTS = frozenset({Ending.NODE_FAILURE, Ending.VANISHED})


def server_for(directory: SearchDirectory, agents: Agents, guard: Callable[[], None]) -> Server | None:
    """What keeps the server of a search's agents; None where they need none. Raises as `Server`."""
    if ServerDirectory.of(directory) is None:
        return None
    from llmzero_hpc.agents.llm.agents import LanguageModel
    from llmzero_hpc.baselines.skills.agent import SkillAgent

    return Server(directory, guard) if isinstance(agents, LanguageModel | SkillAgent) else None


class Server:
    """Keeps one search's server up, from a thread of its own: no tick waits for it, and it changes no tree.

    Args:
        directory: the search.
        guard: raises LeaseError once another controller drives the search.

    Raises:
        ConfigurationError, MissingDependencyError: its job cannot be submitted from here.
    """

    def __init__(self, directory: SearchDirectory, guard: Callable[[], None]) -> None:
        config = directory.record.config
        server, agents, cluster = ServerDirectory.of(directory), config.agents, config.cluster
        if server is None or not isinstance(agents, LanguageModelAgents) or agents.serve is None:
            raise ValueError("this search asks for no server")
        self._root, self._server, self._guard = directory.root, server, guard
        self._model, self._serve = agents.model, agents.serve
        self._shape = shape_of(config, agents.serve)
        self._slurm = cluster if isinstance(cluster, SlurmClusterConfig) else None
        self._grace_seconds, self._tick_seconds = cluster.grace_seconds, config.tick_seconds
        if self._slurm is not None:
            profile = agents.serve.profile or self._slurm.profile
            cluster = self._slurm.model_copy(update={"profile": profile, "time_limit_minutes": None})
        self._cluster = make_cluster(config.model_copy(update={"cluster": cluster}), server.path)
        self._user = f"{config.name}-{directory.record.token}"
        self._watch = ServerWatch(server)
        self._attempt: Attempt | None = None
        self._asked_at: float | None = None
        self._reason = ""
        self._refusals, self._not_before = 0, 0.0
        self._affordable: float | None = None
        self._words, self._charged, self._is_up, self._news = "", 0.0, False, False
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = self._leaving = False
        self._bug: Exception | None = None

    # For the tick

    @property
    def words(self) -> str:
        """How it stands, one line for people."""
        return self._words

    @property
    def device_seconds(self) -> float:
        """What the jobs that this search started have cost."""
        return self._charged

    @property
    def devices(self) -> int:
        """What the search is charged for each second that one of its jobs runs."""
        return self._shape.charged

    @property
    def calls(self) -> dict[str, int]:
        """Questions and orders to the cluster so far, as `Cluster.calls`."""
        return dict(self._cluster.calls)

    def came_up(self) -> bool:
        """Whether it has begun to answer since this was last asked."""
        news, self._news = self._news, False
        return news

    def keep(self, affordable_seconds: float | None) -> None:
        """Keep it up from now on. A job that is started may cost that many device-seconds; None: any number."""
        if self._bug is not None:
            raise self._bug
        self._affordable = affordable_seconds
        self._start()

    def leave(self) -> None:
        """The search needs it no more; without another that does, its job is cancelled. Waits until that is done."""
        self._leaving = True
        self._start()
        self.close()

    def close(self) -> None:
        """Stop keeping it; its job goes on. Waits for a submission that is under way."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    # The thread

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            # A daemon: a file system that hangs must not keep a controller from ending.
            self._thread = threading.Thread(target=self._run, daemon=True, name="server")
            self._thread.start()

    def _run(self) -> None:
        while True:
            closing = self._closed
            try:
                self._guard()
                if self._leaving:
                    self._end()
                    return
                self._reconcile()
            except LeaseError:
                return
            except Exception as error:  # noqa: BLE001 - a bug is for the controller's main thread to tell
                if not isinstance(error, LLMZeroError):
                    self._bug = error
                    return
                self._words = f"{self._server.name}: {error.message}"
            if closing:
                return
            if not self._closed:
                self._wake.wait(min(_LOOK_SECONDS, self._tick_seconds))

    def _reconcile(self) -> None:
        """One look; the same whoever makes it, and however often."""
        server = self._server
        server.create()
        server.use(self._user, self._root)
        number = server.newest()
        if number == 0 or server.ending(number) is not None:
            if (wait := self._wait_before_the_next(number)) > 0:
                self._words = f"{server.name}: {self._last_words(number)}; next try in {wait:.0f} s"
                return
            number += 1
            server.intend(number, self._new_intent(number))
        intent = server.intent(number)
        if intent is None:  # its maker was killed
            server.intend(number, self._new_intent(number))
            return
        if self._attempt is None or self._attempt.name != intent.name:
            self._attempt = Attempt(number, intent.name, intent.intended_at)
            self._asked_at, self._reason = None, ""
        if self._attempt.job is None:
            self._attempt = replace(self._attempt, job=self._job(number, intent))
        if self._attempt.job is not None:
            self._observe(self._attempt, intent)
            self._look()
        self._charged = server.charged(self._user)

    def _wait_before_the_next(self, number: int) -> float:
        """Seconds; the longer the more often it never came up."""
        failures = 0
        for earlier in range(number, 0, -1):
            ending = self._server.ending(earlier)
            if ending is None or Ending(ending.ending) in _FAULTLESS or self._server.has_been_up(earlier):
                break
            failures += 1
        last = self._server.ending(number)
        if last is None or not failures:
            return 0.0
        return last.ended_at + min(self._tick_seconds * 2.0**failures, _LONGEST_PAUSE) - time.time()

    def _new_intent(self, number: int) -> ServerIntent:
        name = f"lz-{self._server.name}-{os.urandom(3).hex()}-server-{number}"
        return ServerIntent(name, self._user, time.time(), self._shape.charged)

    def _job(self, number: int, intent: ServerIntent) -> Job | None:
        """The job of an attempt: known, found by its name, or submitted now; None while it is another's to do that."""
        accepted = self._server.accepted(number)
        if accepted is None:
            age = time.time() - intent.intended_at
            if intent.owner != self._user and age < _SUBMISSION_SECONDS:
                self._words = f"{self._server.name}: is being started by {intent.owner}"
                return None
            if time.monotonic() < self._not_before:
                return None
            job = self._cluster.find(intent.name, self._server.attempt(number).path) or self._submitted(number, intent)
            accepted = AcceptedJob(job.job_id, job.submitted_at)
            self._server.accept(number, accepted)
        return Job(accepted.job_id, intent.name, accepted.submitted_at)

    def _submitted(self, number: int, intent: ServerIntent) -> Job:
        request = self._request(number, intent)
        write_server_script(
            self._server.attempt(number),
            self._slurm.templates if self._slurm else None,
            python=self._shape.python,
            model=str(self._serve.model),
            served_as=self._model,
            gpus=self._shape.gpus,
            max_model_len=context_of(self._serve),
            options=self._serve.vllm_options,
        )
        self._guard()
        try:
            job = self._cluster.submit(request)
        except ClusterError:
            # refused, or accepted and the answer lost: only the cluster knows
            found = self._cluster.find(intent.name, request.directory)
            if found is None:
                pause = min(self._tick_seconds * 2.0**self._refusals, _LONGEST_PAUSE)
                self._refusals, self._not_before = self._refusals + 1, time.monotonic() + pause
                raise
            job = found
        self._refusals = 0
        return job

    def _request(self, number: int, intent: ServerIntent) -> JobRequest:
        """Raises ClusterError: the budget does not cover the shortest job."""
        attempt, limit = self._server.attempt(number), None
        if self._affordable is not None and self._shape.charged:
            limit = self._affordable / self._shape.charged
            if limit < self._cluster.time_limit_grain_seconds:
                raise ClusterError("what is left of the compute budget is too short for the server's job")
        last = self._server.ending(number - 1)
        lost = last is not None and Ending(last.ending) in _LOST_ITS_HOSTS
        seconds = (60 * self._serve.start_minutes, 60 * self._serve.idle_minutes)
        command = ("llmzero_hpc.cluster.server_job", str(attempt.path), NETWORK if self._slurm else HERE)
        devices = {"CUDA_VISIBLE_DEVICES": ",".join(self._serve.gpu_ids)} if self._serve.gpu_ids else {}
        gpus = self._slurm is not None and self._shape.gpus > 0
        return JobRequest(
            name=intent.name,
            directory=attempt.path,
            plan=LaunchPlan((sys.executable, "-m", *command, *(f"{each:g}" for each in seconds)), devices),
            attempt=number,
            devices=self._shape.gpus if gpus else self._shape.cpus,
            gpus=gpus,
            time_limit_seconds=limit,
            avoid=last.hosts if last and lost and self._slurm and self._slurm.exclude_failed_nodes else "",
        )

    def _observe(self, attempt: Attempt, intent: ServerIntent) -> None:
        """Ask the cluster, where that is due, and note the end of the job."""
        job, now = attempt.job, time.monotonic()
        marker = read_marker(self._server.attempt(attempt.number))
        pause = self._tick_seconds * (_CALM_TICKS if self._is_up and marker is None else 1)
        if job is None or (self._asked_at is not None and now - self._asked_at < pause):
            return
        self._asked_at = now
        seen = self._cluster.observe([job]).get(job.name)
        if seen is not None:
            self._reason = f"{seen.state.value}{f' ({seen.reason})' if seen.reason else ''}"
        policy = Policy(self._grace_seconds, intent.devices, max_attempts=0)
        after = advance_attempt(attempt, JobReport(time.time(), answered=True, job=seen, marker=marker), policy)
        if after.ending is not None and after.ended_at is not None:
            # The cluster may think of requeueing what looked lost.
            self._cluster.cancel(job)
            cost = after.device_seconds if after.accounted else self._server.device_seconds(attempt.number)
            ending = ServerEnding(after.ending.value, after.ended_at, cost, after.hosts)
            self._server.end(attempt.number, ending)
        self._attempt = after

    def _look(self) -> None:
        """Whether it answers, and what to tell people."""
        job_id = self._attempt.job.job_id if self._attempt and self._attempt.job else ""
        said = self._watch.announced()
        answers = self._watch.answering() is not None
        if answers != self._is_up:
            self._is_up, self._asked_at = answers, None
            self._news = self._news or answers
        if said is not None and not answers and self._reason.startswith(JobState.PENDING):
            said = None  # the word of an earlier run
        if said is not None and answers:
            how = f"answers at {said.host}:{said.port}"
        elif said is not None:
            how = f"starts at {said.host}" if said.up_at is None else f"does not answer at {said.host}:{said.port}"
        else:
            how = self._reason or "submitted"
        self._words = f"{self._server.name}: {how}, job {job_id}"

    def _end(self) -> None:
        """Cancel the job unless others use it. Where that fails, the job ends by itself: it sees that nobody does."""
        server = self._server
        server.leave(self._user)
        used_at = server.used_at()
        self._words = f"{server.name}: left to others"
        if used_at is not None and time.time() - used_at < 60 * self._serve.idle_minutes:
            return
        number = server.newest()
        intent = server.intent(number) if number else None
        if intent is not None and server.ending(number) is None:
            accepted, place = server.accepted(number), server.attempt(number).path
            job = Job(accepted.job_id, intent.name, accepted.submitted_at) if accepted else None
            with suppress(ClusterError):
                job = job or self._cluster.find(intent.name, place)
                if job is not None:
                    self._cluster.cancel(job)
        self._charged = server.charged(self._user)
        self._words = f"{server.name}: ended"

    def _last_words(self, number: int) -> str:
        ending = self._server.ending(number)
        said = f"its job ended ({ending.ending if ending else 'unknown'})"
        log = self._server.attempt(number).trainer_log
        with suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said += f": {lines[-1].strip()[:200]}" if lines else ""
        return f"{said}; see {log}"
