"""`python -m llmzero_hpc.trainers.verl.make_schema`: write `schema.json` anew, with the VeRL of this environment.

The file lists every setting of VeRL's trainer with its types, so that a configuration can be checked where VeRL
is not installed. A type is that of VeRL's own dataclass where it has one, or else that of the default.
"""

from __future__ import annotations

import json
import types
import typing
from dataclasses import is_dataclass
from typing import Any, Final

from llmzero_hpc.trainers.verl.schema import SCHEMA_FILE

_NAMES: Final = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}
_SECTIONS: Final = ("actor_rollout_ref", "algorithm", "data", "trainer")
_LEFT_OUT: Final = frozenset({"profiler", "qat", "turbo_config", "mtp", "lora", "trace"})
"""Of no use here: what watches, quantizes, or belongs to other engines."""


def main() -> None:
    """Write the file."""
    import verl
    from hydra import compose, initialize_config_module
    from omegaconf import DictConfig, OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["actor_rollout_ref.rollout.name=vllm"])
    if not isinstance(config, DictConfig):
        raise TypeError(type(config))
    sections = OmegaConf.to_container(config, resolve=False)
    if not isinstance(sections, dict):
        raise TypeError(type(sections))
    known = {name: sections[name] for name in _SECTIONS}
    keys = dict(sorted(_leaves(known, config, "", {})))
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(kinds)}" for key, kinds in keys.items())
    SCHEMA_FILE.write_text(f'{{"verl": {json.dumps(verl.__version__)}, "keys": {{\n{lines}\n}}}}\n', encoding="utf-8")


def _leaves(node: Any, config: Any, prefix: str, hints: dict[str, Any]) -> list[tuple[str, str]]:
    """Settings below a section, with their types joined by `|`; `hints` are those of a section that names no class."""
    hints = _hints_of_target(node.get("_target_")) or hints
    found = []
    for name, value in node.items():
        if name == "_target_" or name in _LEFT_OUT:
            continue
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict):
            found += _leaves(value, config, key, _hints(hints.get(name)))
        elif isinstance(value, list):
            found.append((key, "list"))
        else:
            found.append((key, _kinds(hints.get(name), _value(config, key))))
    return [(key, kinds) for key, kinds in found if kinds]


def _value(config: Any, key: str) -> Any:
    """A default with its references followed."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def _kinds(hint: Any, value: Any) -> str:
    names = {_NAMES[kind] for kind in _alternatives(hint) if kind in _NAMES}
    if not names - {"null"} and type(value) in _NAMES:
        names |= {_NAMES[type(value)]}
    return "|".join(sorted(names))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in {types.UnionType, typing.Union} else (hint,)


def _hints_of_target(target: str | None) -> dict[str, Any]:
    if target is None:
        return {}
    from hydra.utils import get_class

    return _hints(get_class(target))


def _hints(hint: Any) -> dict[str, Any]:
    kind = next((kind for kind in _alternatives(hint) if isinstance(kind, type) and is_dataclass(kind)), None)
    return typing.get_type_hints(kind) if kind else {}


if __name__ == "__main__":
    main()
