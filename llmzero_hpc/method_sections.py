"""The methods that a search may use, as `search.yaml` names them: LLMZero, and the baselines it is compared with."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from llmzero_hpc.mistakes import Mistake, closest
from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.search.hyperparameters import HYPERPARAMETERS
from llmzero_hpc.search.methods import (
    GreedyChain,
    IndependentTrials,
    Method,
    OwnChoice,
    Population,
    Schedule,
    TreeSearch,
)
from llmzero_hpc.sections import EarlyStop, Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmzero_hpc.search.rules import Rules


def _read_number(value: Any) -> Any:
    """YAML takes 1e-5 for text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", value) else value


Value = Annotated[bool | int | float | str, BeforeValidator(_read_number)]


def _read_list(value: Any) -> Any:
    """What `_named` has seen is no JSON any more, in which a list would do for a tuple."""
    return tuple(value) if isinstance(value, list) else value


_List = BeforeValidator(_read_list)
Values = Annotated[tuple[Value, ...], Field(min_length=1), _List]
Factor = Annotated[float, Field(gt=0)]
Factors = Annotated[tuple[Factor, ...], Field(min_length=1), _List]


class Range(Section):
    """Limits of a hyperparameter that is sampled."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Sample its logarithm."""


Ranges = dict[str, Range | Values]
"""What is sampled: a range, or a list of choices."""

PAPER_RANGES: Mapping[str, Range | tuple[Value, ...]] = MappingProxyType(
    {
        "learning_rate": Range(low=1e-5, high=1e-4, log=True),
        "kl_coefficient": Range(low=1e-5, high=1e-3, log=True),
        "temperature": Range(low=0.6, high=1.2),
        "clip_range": Range(low=0.15, high=0.35),
        "batch_size": (64, 128, 256),
        "lora_rank": (16, 32, 64, 128),
        "rollouts": (6, 8, 12),
        "epochs": (3.0, 5.0),
    }
)
"""The ranges of the paper's random search (appendix B.2)."""
PAPER_GRID: Mapping[str, tuple[Value, ...]] = MappingProxyType(
    {"learning_rate": (1e-5, 3e-5, 5e-5, 1e-4), "lora_rank": (64, 128)}
)
"""What the paper's grid sweeps (appendix E.1)."""
PAPER_GRID_CHANGES: Mapping[str, Value] = MappingProxyType({"epochs": 5.0, "max_response_length": 8192})
"""What all its runs change besides (appendix E.1)."""


class MethodSection(Section):
    """What all methods share.

    Attributes:
        title: its name in tables.
        adaptive: its strategies may have several phases.
        source: where it comes from.
        asks_agents: those under `agents` decide in it.
    """

    title: ClassVar[str]
    adaptive: ClassVar[bool] = False
    asks_agents: ClassVar[bool] = False
    source: ClassVar[str]

    @abstractmethod
    def growth(self, rules: Rules) -> Method:
        """How its tree grows."""

    def words(self) -> str:
        """What is left out of it, for people."""
        return ""

    def judging(self, own: EarlyStop) -> EarlyStop:  # noqa: ARG002 - contract
        """When its running phases are judged; `own` is what `search.yaml` says. A baseline's run to completion."""
        return EarlyStop(enabled=False)


class LLMZeroMethod(MethodSection):
    """The search of the paper: agents propose, stop and repair phases of a tree."""

    title: ClassVar[str] = "LLMZero"
    adaptive: ClassVar[bool] = True
    asks_agents: ClassVar[bool] = True
    source: ClassVar[str] = "the paper, sections 3 and D"
    kind: Literal["llmzero"] = "llmzero"
    """Chosen by this name."""
    tree: bool = True
    """False is an ablation: each phase continues the best one so far, and nothing begins from scratch again."""

    def growth(self, rules: Rules) -> Method:
        """Tree search, or a greedy chain."""
        return TreeSearch(rules) if self.tree else GreedyChain(rules)

    def words(self) -> str:
        """Its tree, where that is left out."""
        return "" if self.tree else "tree: false"

    def judging(self, own: EarlyStop) -> EarlyStop:
        """As `early_stop` says."""
        return own


class PractitionerMethod(MethodSection):
    """One static run of `configuration`."""

    title: ClassVar[str] = "Practitioner"
    source: ClassVar[str] = "the paper, appendix B.2 and Table 12"
    kind: Literal["practitioner"]
    """Chosen by this name."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training rows; those of `configuration` without this key, which may be a phase's few."""

    def growth(self, rules: Rules) -> Method:  # noqa: ARG002 - contract
        """One trial."""
        return IndependentTrials(1)


class _Sampled(MethodSection):
    ranges: Ranges = dict(PAPER_RANGES)
    """What is sampled: hyperparameters with `low`, `high` and `log`, or with a list of choices. Within `bounds`."""

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> _Sampled:
        for key, dimension in self.ranges.items():
            _check_name(key, f"method.ranges.{key}")
            if isinstance(dimension, Range):
                _check_range(key, dimension)
            else:
                for value in dimension:
                    _check_value(key, value, f"method.ranges.{key}")
        return self


class _Trials(_Sampled):
    trials: Annotated[int, Field(ge=1)] | None = None
    """Static runs; none goes on until the budget ends. The paper's random search made 8."""

    def growth(self, rules: Rules) -> Method:  # noqa: ARG002 - contract
        """Trials from scratch."""
        return IndependentTrials(self.trials)


class RandomMethod(_Trials):
    """Random search over static configurations."""

    title: ClassVar[str] = "Random search"
    source: ClassVar[str] = "the paper, appendix B.2 (Bergstra and Bengio 2012)"
    kind: Literal["random"]
    """Chosen by this name."""


class GridMethod(MethodSection):
    """All combinations of some values, each a static run, in order."""

    title: ClassVar[str] = "Grid search"
    source: ClassVar[str] = "the paper, appendix E.1"
    kind: Literal["grid"]
    """Chosen by this name."""
    values: dict[str, Values] = dict(PAPER_GRID)
    """The values of each hyperparameter that is swept."""
    changes: dict[str, Value] = dict(PAPER_GRID_CHANGES)
    """What all runs change against `configuration` besides."""

    @model_validator(mode="after")
    def _values_make_sense(self) -> GridMethod:
        for place, table in (("values", self.values), ("changes", {key: (one,) for key, one in self.changes.items()})):
            for key, values in table.items():
                _check_name(key, f"method.{place}.{key}")
                for value in values:
                    _check_value(key, value, f"method.{place}.{key}")
        return self

    def growth(self, rules: Rules) -> Method:  # noqa: ARG002 - contract
        """A trial for each combination."""
        return IndependentTrials(math.prod(map(len, self.values.values())))


class GuidebookMethod(MethodSection):
    """The Capacity Guidebook: response length and rollouts grow by a fixed schedule, all else stays."""

    title: ClassVar[str] = "Capacity Guidebook"
    adaptive: ClassVar[bool] = True
    source: ClassVar[str] = (
        "the paper, section 4.6; Table 13 has its values, which its text has not, so the factors are ours"
    )
    kind: Literal["guidebook"]
    """Chosen by this name."""
    lengths: Factors = (1.0, 7 / 6, 4 / 3)
    """Response length of each phase, as a multiple of that in `configuration`."""
    rollouts: Factors = (1.0, 1.5, 2.0)
    """Rollouts of each phase, likewise."""

    @model_validator(mode="after")
    def _phases_match(self) -> GuidebookMethod:
        if len(self.lengths) != len(self.rollouts):
            raise Mistake(
                f"method.lengths has {len(self.lengths)} phases and method.rollouts {len(self.rollouts)}",
                "give both a factor for each phase",
            )
        return self

    def growth(self, rules: Rules) -> Method:  # noqa: ARG002 - contract
        """The schedule."""
        return Schedule(len(self.lengths))


class TransferMethod(MethodSection):
    """A strategy that another search found, trained anew; phases keep their epochs, however few: steps follow rows."""

    title: ClassVar[str] = "Strategy transfer"
    adaptive: ClassVar[bool] = True
    source: ClassVar[str] = "the paper, section 4.6"
    kind: Literal["transfer"]
    """Chosen by this name."""
    strategy: Path | None = None
    """The strategy file (`llmzero-hpc export`), read when the search is created."""
    phases: Annotated[tuple[Configuration, ...], _List] = ()
    """The configurations of its phases; taken from the file."""

    @model_validator(mode="after")
    def _something_to_replay(self) -> TransferMethod:
        if self.strategy is None and not self.phases:
            raise Mistake("method.strategy is missing", "name a strategy file: `llmzero-hpc export FOLDER` writes one")
        return self

    def growth(self, rules: Rules) -> Method:  # noqa: ARG002 - contract
        """The strategy."""
        return Schedule(len(self.phases))


class TpeMethod(_Trials):
    """Bayesian optimization of static configurations by Optuna's TPE."""

    title: ClassVar[str] = "TPE"
    source: ClassVar[str] = "Optuna's `TPESampler` (Bergstra et al. 2011)"
    kind: Literal["tpe"]
    """Chosen by this name."""
    startup_trials: Annotated[int, Field(ge=1)] = 4
    """Random trials before the model of the scores is trusted."""


class AshaMethod(_Trials):
    """Random static configurations, of which the worse are stopped at each rung by Optuna's successive halving."""

    title: ClassVar[str] = "ASHA"
    source: ClassVar[str] = "Optuna's `SuccessiveHalvingPruner` (Li et al. 2020), which stops trials and resumes none"
    kind: Literal["asha"]
    """Chosen by this name."""
    first_rung: Annotated[int, Field(ge=1)] = 1
    """Validations of a trial before the first rung; each further rung is `reduction` times as far."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """Of so many trials that reach a rung, one goes on."""

    def judging(self, own: EarlyStop) -> EarlyStop:  # noqa: ARG002 - contract
        """Every validation, in order."""
        return EarlyStop(interval_seconds=0, first_step=1)


class PbtMethod(_Sampled):
    """Population-based training: the worst resume the checkpoints of the best, with perturbed hyperparameters."""

    title: ClassVar[str] = "PBT"
    adaptive: ClassVar[bool] = True
    source: ClassVar[str] = "Jaderberg et al. 2017, synchronous, truncation selection"
    kind: Literal["pbt"]
    """Chosen by this name."""
    population: Annotated[int, Field(ge=2)] = 4
    """Members of a generation; each phase is one."""
    generation_epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the training rows in a generation."""
    factors: Annotated[tuple[Factor, Factor], _List] = (0.8, 1.2)
    """A perturbed number is multiplied by one of these; of a list, the value before or after is taken."""

    def growth(self, rules: Rules) -> Method:  # noqa: ARG002 - contract
        """Generations."""
        return Population(self.population)


class SkillAgentMethod(MethodSection):
    """A language model that plans by itself: eight skills as tools, one conversation that keeps growing, no tree."""

    title: ClassVar[str] = "Skill agent"
    adaptive: ClassVar[bool] = True
    asks_agents: ClassVar[bool] = True
    source: ClassVar[str] = "the paper, appendices B.2 and B.7"
    kind: Literal["skill_agent"]
    """Chosen by this name."""

    def growth(self, rules: Rules) -> Method:  # noqa: ARG002 - contract
        """As the model chooses."""
        return OwnChoice()

    def judging(self, own: EarlyStop) -> EarlyStop:
        """It looks at running phases as often as `early_stop` says."""
        return own


def _named(value: Any) -> Any:
    """`method: random` is short for `method: {kind: random}`."""
    return {"kind": value} if isinstance(value, str) else value


METHODS: tuple[type[MethodSection], ...] = (
    LLMZeroMethod,
    PractitionerMethod,
    RandomMethod,
    GridMethod,
    GuidebookMethod,
    TransferMethod,
    TpeMethod,
    AshaMethod,
    PbtMethod,
    SkillAgentMethod,
)
MethodConfig = Annotated[
    Annotated[
        LLMZeroMethod
        | PractitionerMethod
        | RandomMethod
        | GridMethod
        | GuidebookMethod
        | TransferMethod
        | TpeMethod
        | AshaMethod
        | PbtMethod
        | SkillAgentMethod,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_named),
]


def _check_name(key: str, place: str) -> None:
    if key not in HYPERPARAMETERS:
        raise Mistake(f"{place} is no hyperparameter", closest(key, HYPERPARAMETERS))


def _check_range(key: str, dimension: Range) -> None:
    row = HYPERPARAMETERS[key]
    if row.low is None or row.high is None:
        raise Mistake(f"method.ranges.{key}: {key} is no number, so it has no range", "give it a list of choices")
    if not row.low <= dimension.low <= dimension.high <= row.high:
        raise Mistake(
            f"method.ranges.{key}: {dimension.low:g} to {dimension.high:g} is no range",
            f"low, then high, both within {row.low:g} to {row.high:g}",
        )
    if dimension.log and dimension.low <= 0:
        raise Mistake(f"method.ranges.{key}: low must be above 0 to sample its logarithm")


def _check_value(key: str, value: Value, place: str) -> None:
    problems = [one for one in Configuration().changed(**{key: value}).problems() if one.startswith(f"{key}:")]
    if problems:
        raise Mistake(f"{place}: {problems[0].partition(': ')[2]}", "docs/hyperparameters.md lists what each may be")
