# ruff: noqa: RUF001 - a true minus and an en dash are what people read
"""How values are written for people: numbers, durations, names of hyperparameters, changes, statuses."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from llmzero_hpc.search.node import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmzero_hpc.search.hyperparameters import Scalar

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "max_response_length": "response",
        "rollouts": "rollouts",
        "learning_rate": "lr",
        "kl_coefficient": "kl",
        "temperature": "temp",
        "clip_range": "clip",
        "gradient_clip": "grad clip",
        "batch_size": "batch",
        "mini_batches": "mini-batches",
        "epochs": "epochs",
        "advantage_normalization": "adv norm",
        "lora_rank": "rank",
        "lora_alpha": "alpha",
        "target_modules": "modules",
    }
)
"""Names short enough for one line of a tree."""

STATUS_SYMBOLS: Mapping[NodeStatus, str] = MappingProxyType(
    {
        NodeStatus.PLANNED: "…",
        NodeStatus.PROPOSED: "…",
        NodeStatus.SUBMITTING: "…",
        NodeStatus.PENDING: "◷",
        NodeStatus.RUNNING: "▶",
        NodeStatus.COMPLETED: "✓",
        NodeStatus.EARLY_STOPPED: "■",
        NodeStatus.FAILED: "✗",
        NodeStatus.CANCELLED: "–",
    }
)

STATUS_WORDS: Mapping[NodeStatus, str] = MappingProxyType(
    {status: status.value.replace("_", " ") for status in NodeStatus} | {NodeStatus.EARLY_STOPPED: "stopped early"}
)

METRIC_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "val_score": "Validation score",
        "reward_mean": "Training reward",
        "kl": "KL from the base model",
        "policy_loss": "Policy loss",
        "clip_fraction": "Clipped policy ratios",
        "grad_norm": "Gradient norm",
        "entropy": "Entropy (nats)",
        "response_length_mean": "Response length (tokens)",
        "response_clip_ratio": "Responses cut off",
        "learning_rate": "Learning rate",
        "zero_std_fraction": "Prompts without signal",
        "step_seconds": "Seconds a step",
        "tokens_per_second": "Tokens a second",
        "epoch": "Epochs",
    }
)
"""Titles of the canonical metrics, units in brackets."""


def number(value: Scalar | None) -> str:
    """A value as short as it stays readable: 5e-4, 0.2, 64, on, off; an en dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | str):
        return plain(str(value))
    if value != 0 and (abs(value) < 0.01 or abs(value) >= 1e5):  # noqa: PLR2004 - beyond these a power reads better
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}"


def score(value: float | None) -> str:
    """A score with three decimals; an en dash for None."""
    return "–" if value is None else f"{value:.3f}"


def gain(value: float | None) -> str:
    """A difference of scores with its sign; an en dash for None."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def hours(value: float) -> str:
    """Hours with as many decimals as say something."""
    if value >= 10:  # noqa: PLR2004 - tenths are enough
        return f"{value:.1f}"
    if value >= 0.1 or value == 0:  # noqa: PLR2004
        return f"{value:.2f}"
    return f"{value:.3f}" if value >= 0.01 else f"{value:.2g}"  # noqa: PLR2004


def size(count: float) -> str:
    """Bytes in the largest unit that says something: 0 B, 12 kB, 3.4 GB."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 999.5 and unit != "TB":  # noqa: PLR2004 - what rounds to a thousand is one of the next unit
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}" if unit != "B" and value < 10 else f"{value:.0f} {unit}"  # noqa: PLR2004


def duration(seconds: float) -> str:
    """A duration in its two largest units: 3 s, 2 min 5 s, 4 h 10 min, 2 d 3 h."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    if whole < _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "min")
    return _two(whole, _DAY, "d", _HOUR, "h")


def clock(seconds: float) -> str:
    """A time since the epoch, to the minute, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def dollars(value: float) -> str:
    """Money: cents, and of less than a dollar four decimals."""
    return f"${value:.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


def agent(name: str) -> str:
    """An agent's name for people: `early_stopper` is the early stopper."""
    return plain(name.replace("_", " "))


def _two(whole: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = whole % large // small
    return f"{whole // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


def parameter(name: str) -> str:
    """A hyperparameter's or override's name for a narrow place: the last part of a dotted key."""
    return SHORT_NAMES.get(name) or plain(name.rsplit(".", 1)[-1])


def change(name: str, before: Scalar | None, after: Scalar | None, arrow: str = ">") -> str:
    """One change in a narrow place: `lr 1e-3>5e-4`."""
    return f"{parameter(name)} {number(before)}{arrow}{number(after)}"


def plain(text: str) -> str:
    """Text of unknown origin without control characters, which could drive a terminal, on one line."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.encode("utf-8", "replace").decode().split())


def clipped(text: str, width: int) -> str:
    """The text in at most `width` characters, an ellipsis in place of what is left out; one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: max(0, width - 1)].rstrip() + "…"
