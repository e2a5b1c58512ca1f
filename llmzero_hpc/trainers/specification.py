"""The specification files that a trainer's command reads: YAML, written whole, checked when read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.store.atomic import write_bytes
from llmzero_hpc.trainers.base import EvaluationSpec, PhaseSpec

if TYPE_CHECKING:
    from pathlib import Path

_ADAPTERS: Final = {kind: TypeAdapter[Any](kind) for kind in (PhaseSpec, EvaluationSpec)}
_Specification = TypeVar("_Specification", PhaseSpec, EvaluationSpec)


def write_specification(path: Path, specification: PhaseSpec | EvaluationSpec) -> None:
    """Write a specification as YAML, by rename; `read_phase` and `read_evaluation` return an equal one."""
    data = _ADAPTERS[type(specification)].dump_python(specification, mode="json")
    write_bytes(path, yaml.safe_dump(data, sort_keys=False, width=120).encode())


def read_phase(path: Path) -> PhaseSpec:
    """The specification of a phase.

    Raises:
        ConfigurationError: the file is not there or is not such a specification.
    """
    return _read(path, PhaseSpec)


def read_evaluation(path: Path) -> EvaluationSpec:
    """The specification of an evaluation.

    Raises:
        ConfigurationError: the file is not there or is not such a specification.
    """
    return _read(path, EvaluationSpec)


def _read(path: Path, kind: type[_Specification]) -> _Specification:
    try:
        data = yaml.safe_load(path.read_bytes())
        result: _Specification = _ADAPTERS[kind].validate_python(data)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML ({getattr(error, 'problem', error)})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {where or 'it'}: {first['msg']}") from None
    return result
