"""A search's report data from its folder, without a lease, without a question to the cluster."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from llmzero_hpc.report.collect import Pulse, collect
from llmzero_hpc.report.data import AgentCost, ModelUse
from llmzero_hpc.report.words import plain
from llmzero_hpc.search.node import NodeStatus
from llmzero_hpc.sections import LanguageModelAgents
from llmzero_hpc.store.agent_calls import CallLog
from llmzero_hpc.store.control import is_paused
from llmzero_hpc.store.daemon_file import read_heartbeat, read_queued
from llmzero_hpc.store.lease import holder_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmzero_hpc.report.data import ReportData
    from llmzero_hpc.search.tree import Tree
    from llmzero_hpc.store.search_directory import SearchDirectory


def read(
    directory: SearchDirectory,
    *,
    metrics: Literal["running", "all"] | Iterable[int] = "running",
    costs: bool = False,
    now: float | None = None,
) -> ReportData:
    """What there is to say of a search now.

    Args:
        directory: the search.
        metrics: of which phases the metrics are read: those that run, all, or the given ones.
        costs: read what each agent's calls cost, which takes a look at each call.
        now: seconds since the epoch; None asks the clock.

    Raises:
        CorruptStateError, FormatVersionError, StorageError: as `SearchDirectory.read_tree`.
    """
    tree = directory.read_tree()
    record = directory.record
    data = collect(
        tree,
        record.config,
        created_at=record.created_at,
        train_rows=record.train_rows,
        program_version=record.program_version,
        now=time.time() if now is None else now,
        series={node_id: directory.metrics(node_id) for node_id in _wanted(tree, metrics)},
        pulse=_pulse(directory),
        paused=is_paused(directory),
    )
    return replace(data, model=_model(directory), costs=_costs(directory) if costs else ())


def _model(directory: SearchDirectory) -> ModelUse | None:
    config, heartbeat = directory.record.config, read_heartbeat(directory)
    settings = config.agents
    if not config.method.asks_agents or not isinstance(settings, LanguageModelAgents):
        return None
    calls, tokens, dollars = (
        (0, 0, 0.0) if heartbeat is None else (heartbeat.api_calls, heartbeat.api_tokens, heartbeat.api_dollars)
    )
    return ModelUse(plain(settings.model), calls, tokens, None if settings.prices is None else dollars)


def _costs(directory: SearchDirectory) -> tuple[AgentCost, ...]:
    found = CallLog(directory).spending()
    return tuple(AgentCost(node, agent, spending) for (node, agent), spending in sorted(found.items()))


def _wanted(tree: Tree, metrics: Literal["running", "all"] | Iterable[int]) -> list[int]:
    if metrics == "all":
        return [node.id for node in tree]
    if metrics == "running":
        return [node.id for node in tree if node.status is NodeStatus.RUNNING]
    return [int(node_id) for node_id in metrics]


def _pulse(directory: SearchDirectory) -> Pulse | None:
    heartbeat, queued = read_heartbeat(directory), read_queued(directory)
    if heartbeat is None:
        return (
            None if queued is None else Pulse("", None, queued.submitted_at, is_gone=True, queued_job_id=queued.job_id)
        )
    holder = holder_of(directory)
    waits = queued is not None and queued.submitted_at > heartbeat.beat_at
    return Pulse(
        host=heartbeat.host,
        pid=heartbeat.pid,
        at=heartbeat.beat_at,
        last_error=heartbeat.last_error,
        waiting_for=heartbeat.waiting_for,
        calls=heartbeat.calls,
        api_dollars=heartbeat.api_dollars,
        server=heartbeat.server,
        server_device_seconds=heartbeat.server_device_seconds,
        server_devices=heartbeat.server_devices,
        is_gone=holder is not None and holder.is_gone and not heartbeat.by_cron,
        job_id=heartbeat.job_id,
        by_cron=heartbeat.by_cron,
        queued_job_id=queued.job_id if queued is not None and waits else "",
    )
