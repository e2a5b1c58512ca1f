"""What Slurm's words of refusal are about: the options of a profile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmzero_hpc.cluster.profile import ClusterProfile

_GPUS = ("gpus_per_node", "gpu_type")
_SIZES = (*_GPUS, "cpus_per_node", "memory_gb_per_node")
_SUBJECTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"account or account/partition", ("account", "partition")),
    (r"invalid account", ("account",)),
    (r"partition", ("partition",)),
    (r"accounting/qos policy", ("account", "qos", "nodes", *_SIZES, "time_limit_minutes")),
    (r"qos", ("qos",)),
    (r"reservation", ("reservation",)),
    (r"feature|constraint", ("constraint",)),
    (r"generic resource|gres|trackable resource|tres", _GPUS),
    (r"memory", ("memory_gb_per_node",)),
    (r"cpu count|processors", ("cpus_per_node",)),
    (r"node name", ("nodelist", "exclude")),
    (r"node count", ("nodes", "nodelist")),
    (r"time limit", ("time_limit_minutes",)),
    (r"node configuration", ("nodes", *_SIZES, "constraint", "nodelist", "exclude")),
)
"""From the words of a refusal to the options that can be their cause, the first match decides."""


def refusal(name: str, profile: ClusterProfile, words: str) -> str:
    """A refusal in one line: the profile of that name, the options that it is about, and Slurm's words."""
    options = blamed(words, profile)
    return f"profile {name}: {f'{options}: ' if options else ''}Slurm says: {words}"


def blamed(words: str, profile: ClusterProfile) -> str:
    """The options that a refusal is about, with their values; empty where the words do not tell.

    Where the profile states none of them, Slurm wants one.
    """
    for name, value in profile.sbatch_options.items():
        if re.search(rf"\b{name.removesuffix('s')}", words, re.IGNORECASE):
            return f"sbatch_options.{name}: {value}"
    for pattern, options in _SUBJECTS:
        if re.search(pattern, words, re.IGNORECASE):
            stated = [name for name in options if name in profile.model_fields_set]
            return ", ".join(_shown(name, profile) for name in stated) or f"no {' or '.join(options[:2])}"
    return ""


def _shown(name: str, profile: ClusterProfile) -> str:
    value = getattr(profile, name)
    return f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {value}"
