"""Static configurations and hand-made strategies on the tasks of this benchmark, at equal modelled compute.

    python benchmarks/strategy/screen.py work docs --task two_lengths --seeds 1 2 3

Three phases each, every phase until its modelled seconds are spent, from its parent's adapter with a fresh optimizer.
Phases are kept in `work`; a second run goes on where the first was killed, and `docs` gets
`data/strategy-screening.json` and `strategy-benchmark.md` with all that is there, whichever tasks and seeds were asked
for. No search and no method is run here: the tasks were tuned for headroom by this alone, and then frozen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from phases import TASKS, Changes, run

from llmzero_hpc.store.atomic import write_bytes, write_json

PHASES = 3


def limit(tokens: int, **changes: float) -> Changes:
    return {"max_response_length": tokens, **changes}


def static(changes: Changes) -> tuple[Changes, ...]:
    return (changes,) * PHASES


SHORT = limit(20, batch_size=16, learning_rate=1e-3)
FAST = {"learning_rate": 1e-3}
HOT = {"temperature": 1.5}
MANY = {"rollouts": 32, "batch_size": 4}
LAST = limit(52, batch_size=4, learning_rate=3.5e-4)

TWO_LENGTHS = {
    "20, 16 prompts, 1e-3 > 64 > 52, 4 prompts, 3.5e-4": (SHORT, {}, LAST),
    "20, 16 prompts, 1e-3 > 52, 1e-3 > 52": (SHORT, limit(52, **FAST), limit(52)),
    "20, 16 prompts, 2e-3 > 52, 1e-3 > 52": ({**SHORT, "learning_rate": 2e-3}, limit(52, **FAST), limit(52)),
    "20, 16 prompts, 1e-3 > 64 > 64": (SHORT, {}, {}),
    "64 (the start)": static({}),
    "64, 1e-3": static(FAST),
    "52, 4 prompts, 3.5e-4": static(LAST),
    "52": static(limit(52)),
    "52, 1e-3": static(limit(52, **FAST)),
    "52, 2e-3": static(limit(52, learning_rate=2e-3)),
    "52, 16 prompts, 4 rollouts": static(limit(52, batch_size=16, rollouts=4)),
    "20, 16 prompts, 1e-3": static(SHORT),
}

STRATEGIES: dict[str, dict[str, tuple[Changes, ...]]] = {
    "two_lengths": TWO_LENGTHS,
    "near_tie": TWO_LENGTHS,
    "trap": {
        "20, 16 prompts, 1e-3 > 64, 1e-3 > 64, 1e-3": (SHORT, FAST, FAST),
        "20, 16 prompts, 1e-3 > 36, 1e-3 > 64, 1e-3": (SHORT, limit(36, **FAST), FAST),
        "20 > 64 > 64": (limit(20), {}, {}),
        "64 (the start)": static({}),
        "64, 1e-3": static(FAST),
        "64, 2e-3": static({"learning_rate": 2e-3}),
        "64, 16 prompts, 1e-3": static({**FAST, "batch_size": 16}),
        "20, 16 prompts, 1e-3": static(SHORT),
    },
    "exploration": {
        "start > temperature 1.5 > temperature 1.5": ({}, HOT, HOT),
        "start > temperature 1.5 > start": ({}, HOT, {}),
        "1e-3 > temperature 1.5, 1e-3 > temperature 1.5, 1e-3": (FAST, {**FAST, **HOT}, {**FAST, **HOT}),
        "start > 32 rollouts, 4 prompts > the same": ({}, MANY, MANY),
        "64 (the start)": static({}),
        "1e-3": static(FAST),
        "temperature 1.5": static(HOT),
        "temperature 1.5, 1e-3": static({**HOT, **FAST}),
        "temperature 0.7": static({"temperature": 0.7}),
        "32 rollouts, 4 prompts": static(MANY),
        "32 rollouts, 4 prompts, temperature 1.5": static({**MANY, **HOT}),
        "KL 0.05": static({"kl_coefficient": 0.05}),
    },
}
"""What is screened, by task: the changes of each phase against the task's `search.yaml`."""


def is_static(phases: tuple[Changes, ...]) -> bool:
    return all(changes == phases[0] for changes in phases)


def row(name: str, phases: tuple[Changes, ...], runs: dict[str, list[dict[str, Any]]]) -> str:
    phase = [[run[number] for run in runs.values()] for number in range(PHASES)]
    ends = [fmean(one["score"] for one in found) for found in phase]
    last = phase[-1]
    scores = [one["score"] for one in last]
    spread = f" ±{stdev(scores):.3f}" if len(scores) > 1 else ""
    parts = " / ".join(
        f"{part.removeprefix('val_score/')} {fmean(one['subtasks'][part] for one in last):.2f}"
        for part in last[0]["subtasks"]
    )
    cells = [
        name,
        "static" if is_static(phases) else "several",
        " / ".join(f"{end:.3f}" for end in ends[:-1]) + f" / **{ends[-1]:.3f}**{spread}",
        f"{min(scores):.2f} to {max(scores):.2f}",
        parts,
        " / ".join(
            f"{fmean(run[number]['zero_std_fraction'] for run in runs.values()):.2f}" for number in range(PHASES)
        ),
        " + ".join(f"{fmean(run[number]['steps'] for run in runs.values()):.0f}" for number in range(PHASES)),
        ", ".join(runs),
    ]
    return "| " + " | ".join(cells) + " |"


def page(results: dict[str, dict[str, dict[str, list[dict[str, Any]]]]], text: str) -> str:
    """The document: what is written by hand, with the tables in their places."""
    columns = ("configuration", "kind", "after phase 1 / 2 / 3", "seeds from - to", "last: by family")
    columns += ("equal rewards, phase 1 / 2 / 3", "steps", "seeds")
    for task, strategies in STRATEGIES.items():
        done = results.get(task, {})
        lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        lines += [row(name, phases, done[name]) for name, phases in strategies.items() if done.get(name)]
        text = text.replace(f"<!-- {task} -->", "\n".join(lines) if len(lines) > 2 else "Not screened yet.")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder to keep phases in")
    parser.add_argument("docs", type=Path, help="folder of the page and its data")
    parser.add_argument("--task", choices=list(TASKS), action="append", help="may be repeated; none is all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--only", action="append", help="a strategy by its name; may be repeated; none is all")
    options = parser.parse_args()
    data = options.docs / "data" / "strategy-screening.json"
    results: dict[str, Any] = json.loads(data.read_bytes()) if data.is_file() else {}
    template = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    for seed in options.seeds:
        for task in options.task or TASKS:
            for name, phases in STRATEGIES[task].items():
                if options.only and name not in options.only:
                    continue
                runs = results.setdefault(task, {}).setdefault(name, {})
                runs[str(seed)] = run(options.work.resolve(), TASKS[task], seed, phases)
                print(task, seed, name, [round(phase["score"], 3) for phase in runs[str(seed)]], flush=True)
                write_json(data, results)
                write_bytes(options.docs / "strategy-benchmark.md", page(results, template).encode())
    write_bytes(options.docs / "strategy-benchmark.md", page(results, template).encode())


if __name__ == "__main__":
    main()
