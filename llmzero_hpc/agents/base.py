"""The contract of the agents: what they are asked, and what they may answer. Whatever they say is data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from llmzero_hpc.errors import AgentError
from llmzero_hpc.search.configuration import Bounds, Configuration
from llmzero_hpc.search.metrics import Series
from llmzero_hpc.search.node import Checkpoint, Ending, Node, Rationale, TransitionKind
from llmzero_hpc.search.strategy import StrategyPhase
from llmzero_hpc.store.agent_calls import Spending
from llmzero_hpc.store.marker import Marker


@dataclass(frozen=True, slots=True)
class Sibling:
    """A child that was already tried from the same parent: its configuration and what became of it."""

    node: Node
    gain: float | None
    """Its best validation score minus the parent's; None while it has none."""


@dataclass(frozen=True, slots=True)
class ProposalRequest:
    """A question to the proposer (section 3.4): what the next phase after `parent` should be.

    `series` is the parent's own phase; `strategy` the whole concatenated trajectory that ends with it.
    For a scratch phase `checkpoints` is empty: checkpoint information is withheld (section 3.3).
    """

    kind: TransitionKind
    parent: Node
    series: Series
    strategy: Series
    checkpoints: tuple[Checkpoint, ...]
    """Where the child may resume: complete, validated checkpoints of the parent, ascending."""
    siblings: tuple[Sibling, ...]
    """Other children of the parent; for a scratch phase the other scratch phases."""
    best_score: float | None
    """Best validation score of the whole search."""
    bounds: Mapping[str, Bounds]
    train_rows: int
    validate_every_steps: int
    iterations_left: int
    seed: int
    phases: tuple[StrategyPhase, ...] = ()
    """The strategy that ends with the parent, phase by phase."""
    child: int | None = None
    """Id of the planned node, whose folder keeps what was asked and answered; None: the parent's folder does."""
    history: tuple[tuple[Node, Series], ...] = ()
    """Every phase so far with its own rows, where the answer says itself what it continues; else none."""
    log_tail: str = ""
    """Beside `history`: the end of the newest phase's log where that failed."""
    device_hours_left: float | None = None
    """Of the search's budget, less the phases that have ended; None: it has no limit."""
    strategy_hours_left: float | None = None
    """Device-hours that a strategy may still cost after the parent, or from scratch; None: it has no limit."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An answer: a configuration, and the step to resume from (None exactly for scratch)."""

    configuration: Configuration
    resume_step: int | None
    rationale: Rationale
    resume_node: int | None = None
    """Whose step that is, for requests with a `history` (None from scratch); for others it is the parent's."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A question to the early stopper (section 3.5): whether this phase can still overtake the best strategy.

    `series` holds the running phase so far, `strategy` the trajectory that it extends (itself included), `best` the
    trajectory of the best completed strategy, aligned on strategy steps.
    """

    node: Node
    series: Series
    strategy: Series
    best: Series
    best_score: float
    last_step: int
    """The step at which the phase would end by itself."""
    rivals: tuple[Node, ...] = ()
    """All other phases with a validation score, running ones included, by id."""


@dataclass(frozen=True, slots=True)
class StopAnswer:
    """CONTINUE (`stop` false) or STOP, with the reason in words."""

    stop: bool
    reason: str
    author: str


@dataclass(frozen=True, slots=True)
class FailureRequest:
    """A question to the error analyzer: why this phase failed, and what would repair it."""

    node: Node
    exit_code: int | None
    log_tail: str
    series: Series
    earlier: tuple[Node, ...]
    """Repairs of the same failure that were tried before."""
    bounds: Mapping[str, Bounds]
    resumed: Node | None = None
    """The phase whose checkpoint the failed one started from; None from scratch."""
    ending: Ending | None = None
    """How its last attempt ended, by all that the cluster and the marker said."""
    marker: Marker | None = None
    """The job's own last word; None where it died without one."""
    train_rows: int | None = None
    """Rows of the training split; None where it is not known how many steps other epochs would make."""
    child: int | None = None
    """Id of the planned repair, whose folder keeps what was asked and answered; None: that of the failed phase does."""


@dataclass(frozen=True, slots=True)
class Repair:
    """An answer: the configuration of the debug phase, and the checkpoint of the failed phase that it resumes.

    With `resume_step` None it starts where the failed phase had started.
    """

    configuration: Configuration
    rationale: Rationale
    resume_step: int | None = None


class AgentUnavailableError(AgentError):
    """An agent cannot be asked at the moment, and nobody else is to answer: the same question is asked again later.

    Args:
        message, next_step: as for every error.
        retry_seconds: not before this long from now; None leaves it to the one who asks.
    """

    def __init__(self, message: str, next_step: str = "", *, retry_seconds: float | None = None) -> None:
        super().__init__(message, next_step)
        self.retry_seconds = retry_seconds


class WorkDoneError(AgentError):
    """An agent that chooses for itself what to continue wants no further phase: the search is over.

    Attributes:
        rationale: why, and what it says of its work.
    """

    def __init__(self, rationale: Rationale) -> None:
        super().__init__(rationale.diagnosis)
        self.rationale = rationale


class Agents(ABC):
    """Those who decide between and beside the jobs.

    Calls may take minutes and come from threads, several at once. They touch no file of the search but their own log
    (`store.agent_calls`). A thread may be killed at any instant; its question is then asked again.
    An agent that raises never stops a run: `AgentUnavailableError` leaves the node planned and asks again later; after
    any other exception the controller repeats the parent's or the failed configuration, and a phase that was to be
    judged continues.
    """

    @abstractmethod
    def propose(self, request: ProposalRequest) -> Proposal:
        """The next phase. The controller checks the answer (bounds, fixed parameters, checkpoint, trainer).

        Raises:
            WorkDoneError: there is to be none; only for requests with a `history`.
        """

    @abstractmethod
    def judge(self, request: StopRequest) -> StopAnswer:
        """Whether a running phase may go on."""

    @abstractmethod
    def repair(self, request: FailureRequest) -> Repair:
        """How to repair a failed phase."""

    def spending(self) -> Spending:
        """What language models have cost this search so far; from any thread."""
        return Spending()
