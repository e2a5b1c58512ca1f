"""A node of the tree: one training phase, how it came about, how often it was submitted, what it reached."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llmzero_hpc.search.configuration import Configuration


class NodeStatus(StrEnum):
    """Life of a node. The first five are active, the last four final."""

    PLANNED = "planned"
    """Its parent is chosen; an agent is asked for its configuration."""
    PROPOSED = "proposed"
    """It has a configuration and may be submitted."""
    SUBMITTING = "submitting"
    """The intent of an attempt is on disk; the cluster may or may not have the job."""
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    EARLY_STOPPED = "early_stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """A person took it out; it says nothing about the strategy."""

    @property
    def is_final(self) -> bool:
        """No job of it will run again."""
        return self in _FINAL


_FINAL = frozenset({NodeStatus.COMPLETED, NodeStatus.EARLY_STOPPED, NodeStatus.FAILED, NodeStatus.CANCELLED})


class TransitionKind(StrEnum):
    """How a node differs from where it came from."""

    SCRATCH = "scratch"
    EVOLVE = "evolve"
    DEBUG = "debug"


class Ending(StrEnum):
    """How an attempt ended. Only `ERROR` is a failure of the phase itself."""

    COMPLETED = "completed"
    ERROR = "error"
    """The trainer exited with an error of its own."""
    STOPPED = "stopped"
    """Cancelled by the early stopper or by a person, whose decision is on the node."""
    TIME_LIMIT = "time_limit"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node_failure"
    LAUNCH_FAILURE = "launch_failure"
    """The cluster refused it or it died before the trainer started."""
    INFRASTRUCTURE_ERROR = "infrastructure_error"
    """The trainer, or the job around it, says that a machine, the network or a disk failed it."""
    VANISHED = "vanished"
    """The job is gone without a word: killed from outside, a reboot."""

    @property
    def is_infrastructure(self) -> bool:
        """No failure of the strategy: the same node continues as its next attempt."""
        return self not in {Ending.COMPLETED, Ending.ERROR, Ending.STOPPED}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete adapter checkpoint with the validation score measured on it."""

    step: int
    score: float


@dataclass(frozen=True, slots=True)
class CheckpointReference:
    """Where a phase resumes: the adapter of `node` after `step` (numbered along the strategy)."""

    node: int
    step: int


@dataclass(frozen=True, slots=True)
class Job:
    """Identity of an accepted job. Ids are reused by clusters, so all three together identify it."""

    job_id: str
    name: str
    submitted_at: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of a job.

    Times are seconds since the epoch. `intended_at` is set before the cluster is asked, `job` after it accepted,
    `started_at` while its present run, or its last, is known; a job that was requeued and waits has none.
    `device_seconds` is what the attempt cost: wall seconds times allocated devices (GPUs, or CPUs without any).
    """

    number: int
    name: str
    intended_at: float
    job: Job | None = None
    started_at: float | None = None
    ended_at: float | None = None
    ending: Ending | None = None
    exit_code: int | None = None
    device_seconds: float = 0.0
    resumed_step: int = 0
    """Newest complete checkpoint when it was intended; attempts that share it gained nothing."""
    missing_since: float | None = None
    """Since when the cluster has not known the job; cleared when it is seen again."""
    restarts: int = 0
    """How often the cluster requeued the job."""
    earlier_device_seconds: float = 0.0
    """The part of `device_seconds` that the job's runs before the present one cost."""
    allowance: float | None = None
    """Device-seconds that a run of the job may cost at most, by its time limit; None where nothing limits it."""
    hosts: str = ""
    """The machines of its last run, as the cluster writes lists of them."""
    accounted: bool = False
    """`device_seconds` is the cluster's own final figure, not this program's estimate."""
    recalled: bool = False
    """Its job was cancelled because a person stopped the search with its jobs: that says nothing of the phase."""
    problem: str = ""
    """Why it failed in its own job's words, one line; empty where that said nothing."""

    @property
    def is_over(self) -> bool:
        """The attempt has ended."""
        return self.ending is not None


BUDGET, STRATEGY_BUDGET = "budget", "strategy budget"
"""Authors of the stops that limits make: of the whole search, and of what one strategy may cost."""


@dataclass(frozen=True, slots=True)
class StopDecision:
    """Why a phase was ended early. What it reached after `step` does not count, so a late kill changes no result."""

    step: int
    reason: str
    author: str
    decided_at: float


@dataclass(frozen=True, slots=True)
class Rationale:
    """What an agent said for a proposal: shown to people, never read by the search.

    `author` is `default` (root), `playbook`, or a model's name; `rule` names the playbook's rule.
    """

    author: str
    diagnosis: str
    evidence: tuple[str, ...] = ()
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One phase.

    `parent` is its place in the search tree and moves when a repair succeeds; `resume` is where its weights come
    from and never moves; `repairs` is the failed node that a debug node repairs.
    Node ids count from 0 in the order of creation.
    """

    id: int
    kind: TransitionKind
    parent: int | None
    seed: int
    created_at: float
    status: NodeStatus = NodeStatus.PLANNED
    repairs: int | None = None
    resume: CheckpointReference | None = None
    configuration: Configuration | None = None
    total_steps: int | None = None
    """GRPO steps that this phase is to make; its last step is `first_step + total_steps - 1`."""
    rationale: Rationale | None = None
    attempts: tuple[Attempt, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    """Complete and validated, ascending; those after a stop decision are left out."""
    last_step: int | None = None
    """Newest step reported."""
    judged_step: int = 0
    """The step that the early stopper has judged last; 0 before it has."""
    judged_at: float | None = None
    """When it did, seconds since the epoch."""
    stop: StopDecision | None = None
    cancel_requested: bool = False
    pruned: bool = False
    """In the subtree of a failure that was repaired elsewhere: never expanded again."""
    is_leaf: bool = False
    """The strategy that ends here has used up what one may cost: nothing resumes from it."""
    problem: str = ""
    """Why it failed, one line."""

    @property
    def first_step(self) -> int:
        """Its first step along the strategy: the checkpoint's step + 1."""
        return 1 if self.resume is None else self.resume.step + 1

    @property
    def best(self) -> Checkpoint | None:
        """Best validated checkpoint; ties go to the earlier step."""
        return max(self.checkpoints, key=lambda point: (point.score, -point.step), default=None)

    @property
    def score(self) -> float | None:
        """Best validation score of this phase, or None."""
        best = self.best
        return None if best is None else best.score

    @property
    def is_active(self) -> bool:
        """Planned, queued or running: occupies a slot."""
        return not self.status.is_final

    @property
    def counts(self) -> bool:
        """A run that the statistics count: final, and not taken out by a person before it scored."""
        return self.status.is_final and (self.status is not NodeStatus.CANCELLED or self.score is not None)

    @property
    def is_under_failure(self) -> bool:
        """A debug node that hangs under the failure it is to repair; a repair that succeeded has moved away."""
        return self.kind is TransitionKind.DEBUG and self.parent == self.repairs

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def device_seconds(self) -> float:
        """Cost of all attempts so far."""
        return sum(attempt.device_seconds for attempt in self.attempts)
