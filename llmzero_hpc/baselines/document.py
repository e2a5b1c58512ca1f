"""The page on methods: written from their settings, so that it cannot say anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from llmzero_hpc.method_sections import (
    METHODS,
    PAPER_GRID,
    PAPER_GRID_CHANGES,
    PAPER_RANGES,
    MethodSection,
    Range,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD = """\
<!-- Written by docs/generate.py (`make docs`): change the code instead. -->

# Methods

`method` in [search.yaml](search-yaml.md) says what a search is: LLMZero, or something it is compared with. All of them
run through the same controller: submission, budgets, attempts, kills, resumption, the report and the test score (once,
of the best validated checkpoint) are the very same code. They differ in where the tree grows, who proposes, and who
stops running phases.

"""
_NOTES = """
- A failed phase of a baseline is the result of its trial: nothing is repaired. What the infrastructure does to a job is
  no failure, as for LLMZero.
- Baselines run to completion; ASHA alone stops trials. `early_stop`, `rules` and `agents` are LLMZero's, but for the
  skill agent.
- The skill agent starts with `configuration`, as LLMZero does. Then one model decides everything in one conversation,
  through eight tools (`prompts/skills/`): which checkpoint to resume, with what, when to stop a phase, when to end. It
  looks at running phases as often as `early_stop` says. All that was said is kept in the folders of the phases and sent
  again with each call, so it pays for its whole past each time; `results.md` shows tokens and dollars. When the money
  is spent (`budget.api_dollars`) or the model's context is full, its work is over. Replies name hyperparameters, steps
  and phases, never a path, a command or code, and no tool reads the test rows. Endpoints without tools are told of them
  in words. It needs `agents` with a model, and one phase at a time.
- Whatever is random follows from `seed` and the number of the phase: a search that is killed and goes on makes the same
  proposals.
- Ranges and choices are cut to `bounds`. Where `lora_rank` is set and `lora_alpha` is not, alpha keeps its ratio to the
  rank; a batch that `mini_batches` does not divide is split into as many parts as do.
- Optuna's study is built anew from the tree for each answer, so Optuna keeps no storage of its own. Phases in flight
  count as running trials, failed ones as failed. TPE is seeded anew for each trial.
- ASHA's resource is the number of validations of a trial. Optuna's variant stops trials at rungs and resumes none; the
  first trials of a rung go on where they are the best so far.
- In PBT a generation begins when all of the one before have ended (Jaderberg et al. do not wait): so results do not
  depend on who is faster. Its worst quarter, at least one member, resumes the last checkpoints of its best. Fixed
  hyperparameters are sampled once and inherited; `epochs` is never sampled, generations have one length.
- What the paper does not say in its text: the practitioner's table (12) and the guidebook's (13). `configuration` is
  the practitioner's as far as it is stated; the factors of the guidebook are ours.
"""
_RANGES = """
## Ranges

What `random`, `tpe`, `asha` and `pbt` sample unless `method.ranges` says otherwise: the ranges of the paper's random
search (appendix B.2).

"""
_GRID = """
The grid sweeps {swept}, all with {changed} (appendix E.1), unless `method.values` and `method.changes` say otherwise.
"""
_RESULTS = """
## Strategies as files

`llmzero-hpc export FOLDER` writes the best strategy: every phase with its whole configuration, transition, diagnosis,
evidence, checkpoint step, scores and cost, and where it comes from
([JSON Schema](../state/schemas/strategy.schema.json)). `llmzero-hpc replay STRATEGY.yaml` trains it anew,
with `--task SEARCH.YAML` on another task. A phase keeps its epochs: with as many training rows it makes exactly the
same steps, with twice as many twice as many. `llmzero-hpc diff A B` shows two strategies beside each other,
`llmzero-hpc analyze A B ...` what they have in common: which parameters moved, which turned, what changed together, and
what it gained.

## Comparisons

```yaml
# compare.yaml
name: methods
search: search.yaml          # task, model, start, bounds and cluster, the same for all methods
methods:
  llmzero: llmzero
  random: {kind: random, ranges: {learning_rate: {low: 1e-4, high: 3e-3, log: true}, rollouts: [6, 8, 12]}}
  tpe: tpe
seeds: [0, 1, 2, 3, 4, 5, 6, 7]
fresh_seeds: [101, 102, 103, 104, 105, 106, 107, 108]   # each method's best strategy is trained anew with these
budget: {device_hours: 4}    # of each search; what is stopped early or fails is paid for
reference: llmzero           # the others are compared with it; the first without this key
at_once: 2                   # searches driven side by side
```

`llmzero-hpc compare compare.yaml` runs one search for each method and seed, in subfolders of one folder. It may be
stopped or killed at any time; the same command goes on. `--look` shows what there is so far. `search` must set
`bounds.max_response_length.high`, as all methods are validated at that limit. The test score is measured once a search,
outside of the budget (`budget.includes_test: false`).

- The table has the best validation score and the test score of that checkpoint, means over seeds with their standard
  deviation; what was spent; and the median compute until a run had the best validation score of all static methods on
  its seed.
- The best of many runs on one seed flatters whoever made most of them. With `fresh_seeds` the strategy of each method's
  best validation score is trained anew, step for step, on seeds that chose nothing: the folder `winners` has the same
  table and pictures for these.
- Who trains longer may win without any strategy. `budget.strategy_device_hours` limits what one strategy may cost, for
  all methods alike: a phase ends at the step that uses it up, and nothing resumes from there.
- Pairs share a seed. A difference comes with its bootstrap interval (10,000 resamples, 95 %), effect size (mean over
  standard deviation of the differences) and how many seeds it won; with fewer than four pairs nothing is concluded.
- Curves count phases one after the other in the order in which they began, and spread the cost of a phase evenly over
  its steps. Static methods are not run again for the curve.
- Wall hours put the phases of a search on its places (`max_parallel_phases`), each for what it cost divided by its
  devices: no queue, and no machine that searches share, is in them.
- `results.md` holds the tables, `comparison.json` all of it, `comparison.svg` and `.png` the curves with intervals.

### Ablations

`changes` gives single methods other settings of `search`: keys of `rules`, `early_stop` and `agents`, and
`max_parallel_phases`. So the skill agent may have its model where the others have rules:
`changes: {skills: {agents: {base_url: ..., model: ...}}}`.

```yaml
name: ablations
search: search.yaml
methods:
  full: llmzero
  no-stages: llmzero
  no-vision: llmzero
  no-stop: llmzero
  no-injection: llmzero
  chain: {kind: llmzero, tree: false}    # no tree: each phase continues the best one so far
  two-slots: llmzero
  four-slots: llmzero
changes:
  no-stages: {rules: {single_stage: true}}
  no-vision: {agents: {vision: false}}   # where agents are a model that sees
  no-stop: {early_stop: {enabled: false}}
  no-injection: {rules: {min_scratch_ratio: 0}}
  two-slots: {max_parallel_phases: 2}
  four-slots: {max_parallel_phases: 4}
seeds: [0, 1, 2, 3, 4, 5, 6, 7]
budget: {iterations: 16}
```

The first three are the paper's (Table 2). With a budget of iterations all get as many phases and spend what they need;
with one of device hours all spend the same. `results.md` says in either case what the others spent, how fast they were
to an equal score (what early stopping saves is what its absence lacks to 1x), how long they took, and what the test
score was.

A search that is judged on one seed shows nothing: the luckiest of many static runs may equal the best strategy.
`llmzero-hpc confirm SEARCH --seeds 8` trains the best strategy and the best static configuration anew on fresh seeds.
The static one goes on for as much compute as the strategy's own steps cost.
"""


def page() -> str:
    """docs/methods.md, whole."""
    methods = _table(
        ("method", "what it is", "strategies", "from"),
        (
            (
                f"`{_kind(method)}`",
                (method.__doc__ or "").partition("\n")[0],
                "of several phases" if method.adaptive else "static",
                method.source,
            )
            for method in METHODS
        ),
    )
    ranges = _table(
        ("hyperparameter", "sampled from"), ((f"`{key}`", _space(one)) for key, one in PAPER_RANGES.items())
    )
    swept = " and ".join(f"`{key}` {_choices(values)}" for key, values in PAPER_GRID.items())
    changed = " and ".join(
        f"`{key}` {value:g}" for key, value in PAPER_GRID_CHANGES.items() if not isinstance(value, str)
    )
    return _HEAD + methods + _NOTES + _RANGES + ranges + _GRID.format(swept=swept, changed=changed) + _RESULTS


def _kind(method: type[MethodSection]) -> str:
    return str(get_args(method.model_fields["kind"].annotation)[0])


def _space(dimension: Range | tuple[Value, ...]) -> str:
    if not isinstance(dimension, Range):
        return _choices(dimension)
    return f"{dimension.low:g} to {dimension.high:g}" + (", logarithmically" if dimension.log else "")


def _choices(values: tuple[Value, ...]) -> str:
    return ", ".join(f"{value:g}" if not isinstance(value, str) else value for value in values)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
