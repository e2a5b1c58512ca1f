"""What is put right in VeRL 0.9.1, in each of its processes; `VERL_USE_EXTERNAL_MODULES` names this module.

Where trl is installed, VeRL patches a class of it that trl has no more since 1.0, and fails. The class is for critics,
which GRPO does not have: VeRL is told that there is no trl.

New weights go to vLLM through a socket in /tmp that VeRL names after the number of its job in Ray. Every phase has a
Ray of its own, and is the first job in it: phases that share a machine would send their weights to each other's vLLM.
"""

from __future__ import annotations

import verl.utils.import_utils
from ray.runtime_context import RuntimeContext


def _is_trl_available() -> bool:
    return False


_number = RuntimeContext.get_job_id


def _name(context: RuntimeContext) -> str:
    return f"{_number(context)}-{context.gcs_address.replace(':', '-')}"


verl.utils.import_utils.is_trl_available = _is_trl_available
RuntimeContext.get_job_id = _name
