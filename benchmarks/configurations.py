"""What single configurations and strategies reach on the chains task, on three seeds, by the trl trainer itself.

Phases are run one after the other through the very command that a search launches, and kept: a second run goes on
where the first was killed. Phases with the same beginning, configuration and seed are run once.

    python benchmarks/configurations.py work_directory docs/data/configurations.json docs/configurations.md
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from llmzero_hpc.search.configuration import Configuration
from llmzero_hpc.sections import ChainsTask, Hardware, Rehearsal
from llmzero_hpc.store.atomic import write_bytes, write_json
from llmzero_hpc.store.metrics_log import read_series
from llmzero_hpc.tasks.models import BUILTIN_CHAINS, resolve_model
from llmzero_hpc.trainers.base import PhaseSpec
from llmzero_hpc.trainers.checkpoints import checkpoint_path
from llmzero_hpc.trainers.specification import write_specification
from llmzero_hpc.trainers.trl.trainer import TrlTrainer

SEEDS = (1, 2, 3)
LIMIT = 64
"""Longest response in validation, for all."""

BASE = Configuration(
    max_response_length=LIMIT,
    rollouts=8,
    learning_rate=5e-4,
    kl_coefficient=1e-3,
    temperature=1.0,
    batch_size=8,
    mini_batches=2,
    advantage_normalization=True,
    lora_rank=8,
    lora_alpha=16,
)

STEP_SECONDS = {
    (12, 128): 0.14,
    (20, 128): 0.17,
    (32, 64): 0.18,
    (52, 32): 0.17,
    (52, 64): 0.25,
    (64, 64): 0.29,
}
"""CPU seconds of a step by response limit and responses, measured on the policy as it is at the start."""

PHASE_SECONDS = 8.0
"""CPU seconds of rollouts and updates in a phase, by `STEP_SECONDS`: all strategies have the same compute."""


@dataclass(frozen=True)
class Strategy:
    """A name, and for each phase what differs from `BASE`."""

    name: str
    phases: tuple[dict[str, float], ...]


SHORT = {"max_response_length": 20, "batch_size": 16, "learning_rate": 1e-3}
MIDDLE = {"max_response_length": 64, "batch_size": 8, "learning_rate": 5e-4}
LAST = {"max_response_length": 52, "batch_size": 4, "learning_rate": 3.5e-4}


QUICK = {"max_response_length": 52, "batch_size": 8, "learning_rate": 1e-3}


def static(name: str, **changes: float) -> Strategy:
    return Strategy(name, (changes,) * 3)


STRATEGIES = (
    Strategy(
        "limit 20, 16 prompts, 1e-3 > limit 64, 8 prompts, 5e-4 > limit 52, 4 prompts, 3.5e-4", (SHORT, MIDDLE, LAST)
    ),
    Strategy("limit 20, 16 prompts, 1e-3 > limit 64, 8 prompts, 5e-4 > the same", (SHORT, MIDDLE, MIDDLE)),
    Strategy("limit 20, 16 prompts, 1e-3 > limit 52, 8 prompts, 1e-3 > the same", (SHORT, QUICK, QUICK)),
    Strategy(
        "limit 20, 16 prompts, 1e-3 > limit 52, 8 prompts, 1e-3 > the same, 5e-4",
        (SHORT, QUICK, {**QUICK, "learning_rate": 5e-4}),
    ),
    static("limit 64, 8 prompts, 5e-4 (base)"),
    static("limit 52, 4 prompts, 3.5e-4", **LAST),
    static("limit 52, 16 prompts, 4 rollouts, 5e-4", max_response_length=52, batch_size=16, rollouts=4),
    static("limit 20, 16 prompts, 1e-3", **SHORT),
    static("limit 64, 8 prompts, 2e-4", learning_rate=2e-4),
    static("limit 64, 8 prompts, 1e-3", learning_rate=1e-3),
    static("limit 64, 8 prompts, 4e-3", learning_rate=4e-3),
    static("limit 64, 8 prompts, 1e-2", learning_rate=1e-2),
    static("limit 12, 16 prompts, 5e-4", max_response_length=12, batch_size=16),
    static("limit 32, 8 prompts, 5e-4", max_response_length=32),
    static("limit 32, 8 prompts, 1e-3", max_response_length=32, learning_rate=1e-3),
    static("limit 52, 8 prompts, 1e-3", **QUICK),
    static("limit 52, 8 prompts, 2e-3", max_response_length=52, learning_rate=2e-3),
    static("limit 52, 4 prompts, 1e-3", max_response_length=52, batch_size=4, learning_rate=1e-3),
    static(
        "limit 52, 16 prompts, 4 rollouts, 1e-3", max_response_length=52, batch_size=16, rollouts=4, learning_rate=1e-3
    ),
    static("limit 64, 8 prompts, 5e-4, KL 0.1", kl_coefficient=0.1),
    static("limit 64, 8 prompts, 5e-4, temperature 0.6", temperature=0.6),
)


def configuration(changes: dict[str, float]) -> Configuration:
    return BASE.changed(**changes)


def steps_of(chosen: Configuration) -> int:
    """Steps of one phase at equal compute."""
    return round(PHASE_SECONDS / STEP_SECONDS[chosen.max_response_length, chosen.batch_size * chosen.rollouts])


def run_phase(work: Path, seed: int, phases: tuple[dict[str, float], ...]) -> dict[str, object]:
    """The last of `phases`, from the checkpoint of those before; kept under the hash of all of them."""
    configurations = [configuration(changes) for changes in phases]
    steps = [steps_of(chosen) for chosen in configurations]
    folder = work / key(seed, phases)
    kept = folder / "phase.json"
    if kept.is_file():
        return json.loads(kept.read_bytes())  # type: ignore[no-any-return]
    first = sum(steps[:-1]) + 1
    parent = checkpoint_path(work / key(seed, phases[:-1]) / "checkpoints", first - 1) if len(phases) > 1 else None
    attempts = folder / "attempts"
    number = 1 + len(list(attempts.iterdir())) if attempts.is_dir() else 1
    attempt = attempts / str(number)
    attempt.mkdir(parents=True)
    spec = PhaseSpec(
        search="configurations",
        node=len(phases) - 1,
        seed=seed,
        model=BUILTIN_CHAINS,
        task=ChainsTask(),
        configuration=configurations[-1],
        first_step=first,
        total_steps=steps[-1],
        validate_every_steps=20,
        validation_max_response_length=LIMIT,
        parent_adapter=parent,
        checkpoints=folder / "checkpoints",
        training_state=folder / "training_state",
        hardware=Hardware(device="cpu"),
        rehearsal=Rehearsal(),
    )
    write_specification(folder / "config.yaml", spec)
    plan = TrlTrainer().plan(folder / "config.yaml", attempt)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (attempt / "trainer.log").open("wb") as log:
        environment = {**os.environ, **plan.environment}
        code = subprocess.run(plan.command, env=environment, stdout=log, stderr=log, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = read_series(sorted(attempts.glob("*/metrics.jsonl"), key=lambda file: int(file.parent.name))).rows
    if code and not rows:
        raise SystemExit((attempt / "trainer.log").read_text())
    tail = [row.values for row in rows[-5:]]
    scores = {row.step: row.values["val_score"] for row in rows if "val_score" in row.values}
    result: dict[str, object] = {
        "configuration": {name: value for name, value in configurations[-1].values().items() if name != "epochs"},
        "steps": steps[-1],
        "failed": code != 0,
        "validation": {str(step): score for step, score in scores.items()},
        "score": scores[max(scores)] if scores else None,
        "best": max(scores.values(), default=None),
        "subtasks": {name: value for name, value in rows[-1].values.items() if name.startswith("val_score/")},
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_seconds": time.monotonic() - started,
    }
    for name in ("response_clip_ratio", "kl", "entropy", "response_length_mean", "zero_std_fraction", "reward_mean"):
        values = [row[name] for row in tail if name in row]
        result[name] = sum(values) / len(values) if values else None
    write_json(kept, result)
    return result


def key(seed: int, phases: tuple[dict[str, float], ...]) -> str:
    told = json.dumps([PHASE_SECONDS, str(resolve_model(BUILTIN_CHAINS).name), seed, phases], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "-"


def spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.2f} to {max(known):.2f}" if known else "-"


def page(results: list[dict]) -> str:  # type: ignore[type-arg]
    seeds = ", ".join(map(str, SEEDS))
    columns = ("configuration", "steps", "after phase 1 / 2 / 3", "last: least to most", "short / long")
    columns += ("truncation", "KL", "entropy", "CPU s")
    lines = [
        "# What configurations reach on the chains task",
        "",
        "Real GRPO by the trl trainer on one CPU thread: three phases of equal compute (by the cost of a step),",
        "each from its parent's adapter with a fresh optimizer. Where nothing else is said: 8 rollouts, temperature 1,",
        f"KL 0.001, 2 mini-batches. Validation is greedy at limit {LIMIT}; all numbers are means of seeds {seeds}.",
        "Truncation, KL and entropy: the last five steps of the last phase. CPU seconds: three phases with start-up",
        "(about 4.5 each) and validation, on a shared machine. Three seeds show large effects only.",
        "",
        "`python benchmarks/configurations.py work docs/data/configurations.json docs/configurations.md` writes this",
        "page; `data/configurations.json` has every phase.",
        "",
        *_best(results),
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
    ]
    for result in results:
        runs = result["runs"]
        ends = [mean([run[phase]["score"] for run in runs]) for phase in range(3)]
        last = [run[-1] for run in runs]
        parts = [mean([phase["subtasks"].get(f"val_score/{name}") for phase in last]) for name in ("short", "long")]
        cells = [
            result["name"],
            " + ".join(str(phase["steps"]) for phase in runs[0]),
            " / ".join(ends),
            spread([phase["score"] for phase in last]),
            " / ".join(parts),
            mean([phase["response_clip_ratio"] for phase in last]),
            mean([phase["kl"] for phase in last]),
            mean([phase["entropy"] for phase in last]),
            f"{sum(phase['cpu_seconds'] for run in runs for phase in run) / len(runs):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _best(results: list[dict]) -> list[str]:  # type: ignore[type-arg]
    """The best single configuration and the best strategy, with the caution that they need."""

    def last(result: dict) -> float:  # type: ignore[type-arg]
        scores = [run[-1]["score"] or 0.0 for run in result["runs"]]
        return float(sum(scores) / len(scores))

    kinds = {"single configuration": [], "strategy of several": []}  # type: dict[str, list[dict]]
    for result in results:
        several = len({json.dumps(phase["configuration"]) for phase in result["runs"][0]}) > 1
        kinds["strategy of several" if several else "single configuration"].append(result)
    lines = []
    for kind, found in kinds.items():
        if found:
            best = max(found, key=last)
            lines.append(f"Best {kind}, of {len(found)}: {best['name']} ({last(best):.3f}).")
            lines.append("")
    return [
        *lines,
        "Both were picked after the fact, on the seeds that they were measured on: their difference is a lead to",
        "follow on fresh seeds, no finding.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder to keep phases in")
    parser.add_argument("data", type=Path, help="JSON file to write")
    parser.add_argument("page", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    runs: dict[str, list[list[dict[str, object]]]] = {strategy.name: [] for strategy in STRATEGIES}
    for seed in SEEDS:
        for strategy in STRATEGIES:
            done: list[dict[str, object]] = []
            for number in range(len(strategy.phases)):
                if done and done[-1]["failed"]:
                    done.append(done[-1])  # nothing to go on from
                else:
                    done.append(run_phase(options.work.resolve(), seed, strategy.phases[: number + 1]))
            runs[strategy.name].append(done)
            print(seed, strategy.name, [phase["score"] for phase in done], flush=True)
            results = [{"name": name, "runs": found} for name, found in runs.items() if found]
            write_json(options.data, {"seeds": list(SEEDS), "strategies": results})
            write_bytes(options.page, page(results).encode())


if __name__ == "__main__":
    sys.exit(main())
