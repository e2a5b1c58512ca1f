"""Reading cluster profiles, and what a search takes from its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llmzero_hpc import settings_file
from llmzero_hpc.cluster.profile import PAGE, ClusterProfile
from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.mistakes import closest, explained

if TYPE_CHECKING:
    from llmzero_hpc.config import SearchConfig

PLACE_VARIABLE = "LLMZERO_PROFILES"
"""Names the file with the profiles, where a search does not."""

_INIT = "`llmzero-hpc init --slurm FOLDER` writes one to start from; cluster.profiles in search.yaml says where it is"


def profiles_file(file: Path | None) -> Path:
    """The file with the profiles: this one, or the user's."""
    chosen = file or os.environ.get(PLACE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".config" / "llmzero-hpc" / "profiles.yaml"


def read_profile(name: str, file: Path | None) -> ClusterProfile:
    """The profile of that name in a YAML file `{name: {option: value}}`; None is the user's own file.

    Relative paths in it are taken from its folder.

    Raises:
        ConfigurationError: the file is not there or not YAML, it has no such profile, or a value is wrong.
    """
    path = profiles_file(file)
    content = settings_file.parsed(settings_file.read_text(path, _INIT), str(path), _INIT)
    found = {str(key): value for key, value in content.items()}
    if name not in found:
        raise ConfigurationError(f"{path} has no profile {name!r}", closest(name, found) if found else _INIT)
    options = {} if found[name] is None else found[name]
    if not isinstance(options, dict):
        raise ConfigurationError(f"{path}: profile {name}: expected options with values", PAGE)
    try:
        profile = ClusterProfile.model_validate(options)
    except ValidationError as error:
        message, next_step = explained(error.errors(), ClusterProfile, PAGE)
        raise ConfigurationError(f"{path}: profile {name}: {message}", next_step) from None
    folder = path.resolve().parent
    own = {key: getattr(profile, key) for key in ("virtual_environment", "apptainer_image")}
    return profile.model_copy(
        update={key: folder / value.expanduser() for key, value in own.items() if value is not None}
    )


def resolved(config: SearchConfig, profile: ClusterProfile) -> SearchConfig:
    """A Slurm search with the hardware of its cluster profile, where `search.yaml` does not state its own.

    Raises:
        ConfigurationError: it states another than the profile.
    """
    hardware = config.hardware
    theirs = {"nodes": profile.nodes, "gpus": profile.gpus}
    for key, value in theirs.items():
        if key in hardware.model_fields_set and getattr(hardware, key) != value:
            raise _contradiction(config, key, f"{value} {'machines' if key == 'nodes' else 'GPUs'}")
    if hardware.device == "cpu" and profile.gpus and config.trainer != "rehearsal":
        raise _contradiction(config, "device", f"{profile.gpus} GPUs, which would stand idle")
    cpus = profile.cpus_per_node
    if cpus is not None and "threads" in hardware.model_fields_set and hardware.threads > cpus:
        raise _contradiction(config, "threads", f"{cpus} CPUs on each machine")
    update: dict[str, Any] = {**theirs}
    if cpus is not None and "threads" not in hardware.model_fields_set:
        update["threads"] = cpus
    return config.model_copy(update={"hardware": hardware.model_copy(update=update)})


def _contradiction(config: SearchConfig, key: str, theirs: str) -> ConfigurationError:
    cluster = config.cluster
    return ConfigurationError(
        f"hardware.{key}: {getattr(config.hardware, key)} contradicts the cluster profile "
        f"{getattr(cluster, 'profile', '')!r}, which has {theirs}",
        "remove it from search.yaml, or choose another profile",
    )
