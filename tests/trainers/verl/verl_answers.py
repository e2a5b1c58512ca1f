"""Asked by the tests in a Python that has VeRL: what VeRL makes of overrides. A JSON line for each question and answer.

A question is a list of overrides and the settings that are of interest; an answer is their values, or what VeRL said.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

from omegaconf import OmegaConf

from llmzero_hpc.errors import ConfigurationError
from llmzero_hpc.trainers.verl.preflight import composed, validated


def answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        settings = composed(question["overrides"])
        if question.get("validate", True):
            validated(settings)
    except ConfigurationError as error:
        return {"error": error.message}
    return {"values": {key: _plain(OmegaConf.select(settings, key)) for key in question["keys"]}}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_list(value) else value


for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()):
        found = answer(json.loads(line))
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
