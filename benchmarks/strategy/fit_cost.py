"""Fit the cost model of the lean trainer anew: CPU seconds of steps against their tokens, on one core.

    OMP_NUM_THREADS=1 python benchmarks/strategy/fit_cost.py docs/data/lean-cost.json

Configurations are drawn over the ranges of the benchmark; a fit by least squares with relative weights, as a step of
0.05 s counts as much as one of 0.5 s, with no coefficient below 0. The constants in `trainers/lean/cost.py` are
written by hand from what this prints, so that a fit on another machine changes no search.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from phases import TASKS

from llmzero_hpc.store.atomic import make_folder, write_json
from llmzero_hpc.trainers.base import PhaseSpec
from llmzero_hpc.trainers.lean.cost import STEP_SECONDS, UNIT_SECONDS, Work, modelled_seconds
from llmzero_hpc.trainers.lean.train import Phase

CONFIGURATIONS = 24
STEPS = 8
KINDS = tuple(UNIT_SECONDS.named())


def measured(folder: Path) -> list[dict[str, float]]:
    """Work and CPU seconds of steps; the first of each configuration, which warms up, is left out."""
    random = Random(0)
    config = TASKS["two_lengths"].config
    found = []
    for number in range(CONFIGURATIONS):
        configuration = config.configuration.changed(
            max_response_length=random.choice((12, 20, 32, 48, 64)),
            batch_size=random.choice((4, 8, 16, 32)),
            rollouts=random.choice((4, 8, 16)),
            kl_coefficient=random.choice((0.0, 1e-3)),
            temperature=random.choice((0.8, 1.0, 1.2)),
        )
        place = folder / str(number)
        spec = PhaseSpec(
            search="cost",
            node=0,
            seed=number,
            model=config.model,
            task=config.task,
            configuration=configuration,
            first_step=1,
            total_steps=STEPS + 1,
            validate_every_steps=STEPS + 1,
            validation_max_response_length=64,
            parent_adapter=None,
            checkpoints=place / "checkpoints",
            training_state=place / "training_state",
            hardware=config.hardware,
            rehearsal=config.rehearsal,
        )
        make_folder(spec.training_state)
        phase = Phase(spec, None)
        for step, rows in enumerate(phase.batches(1), start=1):
            raw = phase.step(step, rows).raw
            if step > 1:
                found.append({"configuration": float(number), **raw})
    return found


def fitted(steps: list[dict[str, float]]) -> list[float]:
    """Seconds of a step, then of a unit of each kind of work."""
    rows = torch.tensor([[1.0, *(step[kind] for kind in KINDS)] for step in steps], dtype=torch.float64)
    seconds = torch.tensor([step["cpu_seconds"] for step in steps], dtype=torch.float64)
    rows, target = rows / seconds[:, None], torch.ones_like(seconds)
    kept = list(range(rows.shape[1]))
    while True:
        solution = torch.linalg.lstsq(rows[:, kept], target[:, None]).solution.squeeze(1)
        if bool((solution >= 0).all()):
            break
        kept.pop(int(solution.argmin()))
    result = [0.0] * rows.shape[1]
    for place, value in zip(kept, solution.tolist(), strict=True):
        result[place] = value
    return result


def quality(steps: list[dict[str, float]], predicted: list[float]) -> dict[str, float]:
    """R2 over steps, R2 over the means of configurations, and the mean relative error of the latter."""
    by_configuration: dict[float, list[tuple[float, float]]] = {}
    for step, guess in zip(steps, predicted, strict=True):
        by_configuration.setdefault(step["configuration"], []).append((step["cpu_seconds"], guess))
    means = [(fmean(one for one, _ in pairs), fmean(two for _, two in pairs)) for pairs in by_configuration.values()]
    return {
        "r2_steps": _r2([(step["cpu_seconds"], guess) for step, guess in zip(steps, predicted, strict=True)]),
        "r2_configurations": _r2(means),
        "relative_error": fmean(abs(guess / seconds - 1) for seconds, guess in means),
    }


def _r2(pairs: list[tuple[float, float]]) -> float:
    mean = fmean(seconds for seconds, _ in pairs)
    left = sum((seconds - guess) ** 2 for seconds, guess in pairs)
    return 1 - left / sum((seconds - mean) ** 2 for seconds, _ in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        steps = measured(Path(folder))
    coefficients = fitted(steps)
    constant, units = coefficients[0], dict(zip(KINDS, coefficients[1:], strict=True))
    refit = [constant + sum(units[kind] * step[kind] for kind in KINDS) for step in steps]
    kept = [modelled_seconds(Work(*(step[kind] for kind in KINDS))) for step in steps]
    result = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "steps": len(steps),
        "configurations": CONFIGURATIONS,
        "fit": {"step": constant, **units, **quality(steps, refit)},
        "in_use": {"step": STEP_SECONDS, **UNIT_SECONDS.named(), **quality(steps, kept)},
    }
    write_json(options.data, result)
    for name in ("fit", "in_use"):
        print(name, *(f"{key}={value:.4g}" for key, value in result[name].items()))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
