"""From an intent on disk to exactly one job: submit, and after a crash adopt or submit again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmzero_hpc.cluster.base import JobRequest
from llmzero_hpc.controller.advance import newest_checkpoint
from llmzero_hpc.errors import ClusterError
from llmzero_hpc.search.node import Attempt, Ending, Node, NodeStatus
from llmzero_hpc.sections import SlurmClusterConfig
from llmzero_hpc.store.phase_directory import PhaseDirectory
from llmzero_hpc.tasks.base import Split
from llmzero_hpc.trainers.base import EvaluationSpec, LaunchPlan, PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.specification import write_specification

if TYPE_CHECKING:
    from llmzero_hpc.cluster.base import Cluster, Preview
    from llmzero_hpc.search.tree import Evaluation, Tree
    from llmzero_hpc.store.search_directory import SearchDirectory
    from llmzero_hpc.trainers.base import Trainer


_LOST_ITS_HOSTS = frozenset({Ending.NODE_FAILURE, Ending.VANISHED, Ending.INFRASTRUCTURE_ERROR})


@dataclass(frozen=True, slots=True)
class _Work:
    """A phase or an evaluation as the cluster is to do it. `specify` writes what its command is told."""

    folder: PhaseDirectory
    specify: Callable[[], None]
    plan: Callable[[Path], LaunchPlan]


class Submission:
    """Turns phases and evaluations into jobs.

    The order is: intent (an attempt with a name that is unique for ever) committed to `tree.json`; specification
    written; cluster asked; job recorded. A crash after any of these is healed by asking the cluster for the name
    before anything else, so there are never two jobs for one attempt and never a job without its node. An attempt that
    the cluster refused keeps its name: it is the next to be tried.
    """

    def __init__(
        self,
        directory: SearchDirectory,
        cluster: Cluster,
        trainer: Trainer,
        clock: Callable[[], float],
        guard: Callable[[], None] | None = None,
    ) -> None:
        """`guard` is called right before the cluster is asked to submit; what it raises prevents it."""
        self._directory = directory
        self._record = directory.record
        self._config = directory.record.config
        self._cluster = cluster
        self._trainer = trainer
        self._clock = clock
        self._guard = guard
        self._once_refused: set[str] = set()
        self.refusals: dict[str, str] = {}
        """Why the cluster refused an attempt when it was last asked to take it, by the attempt's name."""

    def intended(self, node: Node, allowance: float | None = None) -> Node:
        """A proposed node with its next attempt, to be committed before `launched`.

        `allowance` is what the attempt may cost at most, in device-seconds; None where no budget limits it.
        """
        number = len(node.attempts) + 1
        attempt = Attempt(
            number=number,
            name=f"lz-{self._config.name}-{self._record.token}-{node.id:04d}-{number}",
            intended_at=self._clock(),
            resumed_step=newest_checkpoint(node),
            allowance=allowance,
        )
        return replace(node, status=NodeStatus.SUBMITTING, attempts=(*node.attempts, attempt))

    def launched(self, tree: Tree, node: Node) -> Node:
        """A node whose intent was just committed, with its job; still submitting if the cluster could not say."""
        return self._put(node, self._submitted(node.attempts, self._phase(tree, node)))

    def recovered(self, tree: Tree, node: Node, *, submit: bool) -> Node:
        """A submitting node from before a crash or an outage: its job is looked up by name, and only then submitted.

        With `submit` false (the phase is not wanted any more) a job that is not there ends the attempt.
        """
        return self._put(node, self._recovered(node.attempts, self._phase(tree, node), submit=submit))

    def preview(self, tree: Tree, node: Node) -> Preview:
        """What the next attempt of a proposed node would be. Submits nothing; writes the phase's specification.

        Raises:
            ClusterError: the cluster would refuse it.
        """
        work = self._phase(tree, node)
        work.folder.create()
        work.specify()
        return self._cluster.preview(self._request(self.intended(node).attempts, work))

    def framework_command(self, tree: Tree, node: Node) -> tuple[str, ...]:
        """What that attempt would start in turn; empty where its trainer trains itself. Raises as the trainer."""
        folder = self._directory.phase(node.id)
        attempt = folder.attempt(len(node.attempts) + 1).path
        return self._trainer.framework_command(self._phase_spec(tree, node, folder), attempt)

    def intended_evaluation(self, evaluation: Evaluation, allowance: float | None) -> Evaluation:
        """An evaluation with its next attempt, to be committed before `launched_evaluation`; as `intended`."""
        number = len(evaluation.attempts) + 1
        attempt = Attempt(
            number=number,
            name=f"lz-{self._config.name}-{self._record.token}-{evaluation.split}-{number}",
            intended_at=self._clock(),
            allowance=allowance,
        )
        return replace(evaluation, attempts=(*evaluation.attempts, attempt))

    def launched_evaluation(self, tree: Tree, evaluation: Evaluation) -> Evaluation:
        """As `launched`, for the evaluation."""
        attempt = self._submitted(evaluation.attempts, self._evaluation(tree, evaluation))
        return replace(evaluation, attempts=(*evaluation.attempts[:-1], attempt))

    def recovered_evaluation(self, tree: Tree, evaluation: Evaluation) -> Evaluation:
        """As `recovered`, for the evaluation."""
        attempt = self._recovered(evaluation.attempts, self._evaluation(tree, evaluation), submit=True)
        return replace(evaluation, attempts=(*evaluation.attempts[:-1], attempt))

    def evaluation_folder(self, evaluation: Evaluation) -> PhaseDirectory:
        """Where an evaluation lives."""
        return self._directory.evaluation(evaluation.split, evaluation.checkpoint.node, evaluation.checkpoint.step)

    def evaluation_result(self, evaluation: Evaluation) -> tuple[float, dict[str, float]] | None:
        """Score and subtask scores that the evaluation job left; None when there are none."""
        try:
            data = json.loads(self.evaluation_folder(evaluation).result.read_bytes())
            return float(data["score"]), {str(k): float(v) for k, v in data["subtask_scores"].items()}
        except (OSError, ValueError, KeyError, AttributeError):
            return None

    @staticmethod
    def _put(node: Node, attempt: Attempt) -> Node:
        status = node.status if attempt.job is None else NodeStatus.PENDING
        return replace(node, status=status, attempts=(*node.attempts[:-1], attempt))

    def _phase(self, tree: Tree, node: Node) -> _Work:
        folder = self._directory.phase(node.id)
        return _Work(
            folder,
            specify=lambda: write_specification(folder.specification, self._phase_spec(tree, node, folder)),
            plan=lambda attempt: self._trainer.plan(folder.specification, attempt),
        )

    def _evaluation(self, tree: Tree, evaluation: Evaluation) -> _Work:
        folder = self.evaluation_folder(evaluation)
        return _Work(
            folder,
            specify=lambda: write_specification(folder.specification, self._evaluation_spec(tree, evaluation, folder)),
            plan=lambda attempt: self._trainer.plan_evaluation(folder.specification, attempt),
        )

    def _recovered(self, attempts: tuple[Attempt, ...], work: _Work, *, submit: bool) -> Attempt:
        attempt = attempts[-1]
        try:
            job = self._cluster.find(attempt.name, work.folder.attempt(attempt.number).path)
        except ClusterError:
            return attempt
        if job is not None:
            return replace(attempt, job=job)
        if submit:
            return self._submitted(attempts, work)
        return replace(attempt, ending=Ending.LAUNCH_FAILURE, ended_at=self._clock())

    def _submitted(self, attempts: tuple[Attempt, ...], work: _Work) -> Attempt:
        attempt = attempts[-1]
        work.folder.create()
        work.folder.attempt(attempt.number).create()
        work.specify()
        request = self._request(attempts, work)
        if self._guard is not None:
            self._guard()
        try:
            job = self._cluster.submit(request)
        except ClusterError as error:
            # refused, or accepted and the answer lost: only the cluster knows
            try:
                found = self._cluster.find(attempt.name, request.directory)
            except ClusterError:
                return attempt
            if found is None:
                self.refusals[attempt.name] = error.message
                self._once_refused.add(attempt.name)
                return attempt
            job = found
        return replace(attempt, job=job)

    def _request(self, attempts: tuple[Attempt, ...], work: _Work) -> JobRequest:
        attempt = attempts[-1]
        directory = work.folder.attempt(attempt.number).path
        hardware, cluster = self._config.hardware, self._config.cluster
        lost = attempts[-2] if len(attempts) > 1 and attempts[-2].ending in _LOST_ITS_HOSTS else None
        avoids = isinstance(cluster, SlurmClusterConfig) and cluster.exclude_failed_nodes
        limits = [] if cluster.time_limit_minutes is None else [cluster.time_limit_minutes * 60]
        if attempt.allowance is not None:
            limits.append(attempt.allowance / hardware.devices)
        return JobRequest(
            name=attempt.name,
            directory=directory,
            plan=work.plan(directory),
            attempt=attempt.number,
            devices=hardware.gpus or hardware.threads,
            gpus=hardware.gpus > 0,
            time_limit_seconds=min(limits, default=None),
            nodes=hardware.nodes,
            # Where few machines are left, avoiding some may leave none.
            avoid=lost.hosts if lost and avoids and attempt.name not in self._once_refused else "",
            progress=work.folder.checkpoints,
        )

    def _phase_spec(self, tree: Tree, node: Node, folder: PhaseDirectory) -> PhaseSpec:
        configuration, total_steps = node.configuration, node.total_steps
        if configuration is None or total_steps is None:
            raise ValueError(f"node {node.id} was never proposed")
        adapter = None
        if node.resume is not None:
            source = tree[node.resume.node]
            adapter = checkpoint_path(self._directory.phase(source.id).checkpoints, node.resume.step)
        return PhaseSpec(
            search=self._config.name,
            node=node.id,
            seed=node.seed,
            model=self._config.model,
            task=self._config.task,
            configuration=configuration,
            first_step=node.first_step,
            total_steps=total_steps,
            validate_every_steps=self._config.validate_every_steps,
            validation_max_response_length=self._config.validation_max_response_length(configuration),
            parent_adapter=adapter,
            checkpoints=folder.checkpoints,
            training_state=folder.training_state,
            hardware=self._config.hardware,
            rehearsal=self._config.rehearsal,
        )

    def _evaluation_spec(self, tree: Tree, evaluation: Evaluation, folder: PhaseDirectory) -> EvaluationSpec:
        node = tree[evaluation.checkpoint.node]
        if node.configuration is None:
            raise ValueError(f"node {node.id} was never proposed")
        return EvaluationSpec(
            search=self._config.name,
            node=node.id,
            step=evaluation.checkpoint.step,
            seed=node.seed,
            model=self._config.model,
            task=self._config.task,
            split=Split(evaluation.split),
            adapter=checkpoint_path(self._directory.phase(node.id).checkpoints, evaluation.checkpoint.step),
            max_response_length=self._config.validation_max_response_length(node.configuration),
            hardware=self._config.hardware,
            rehearsal=self._config.rehearsal,
            result=folder.result,
        )
