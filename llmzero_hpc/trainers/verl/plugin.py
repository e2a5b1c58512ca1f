"""What is put right in VeRL 0.9.1, in each of its processes; `VERL_USE_EXTERNAL_MODULES` names this module.

Where trl is installed, VeRL patches a class of it that trl has no more since 1.0, and fails. The class is for critics,
which GRPO does not have: VeRL is told that there is no trl.
"""

from __future__ import annotations

import verl.utils.import_utils


def _is_trl_available() -> bool:
    return False


verl.utils.import_utils.is_trl_available = _is_trl_available
