"""Whether a cluster profile works, proven on a login node: each check is one finding, with what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmzero_hpc.cluster.doctor_finding import Finding, Verdict
from llmzero_hpc.cluster.doctor_job import job_findings
from llmzero_hpc.cluster.doctor_login import login_findings
from llmzero_hpc.cluster.doctor_storage import storage_findings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmzero_hpc.cluster.doctor_finding import Patient


def examined(
    patient: Patient, *, job: bool, wait_seconds: float, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """All checks, cheapest first; those that build on a failed one are left out.

    With `job` a small job runs with the profile: its start is waited for `wait_seconds`, and it is never left behind,
    also when the iteration is given up. `tell` hears what is being waited for.
    """
    healthy = True
    free_gb = patient.config.housekeeping.free_gb if patient.config else 0.0
    for findings in (storage_findings(patient.state, free_gb, shared=True), login_findings(patient)):
        for finding in findings:
            healthy &= finding.verdict is not Verdict.FAILED
            yield finding
    if not job:
        yield Finding("job", Verdict.SKIPPED, "left out by --quick: what the machines of a job see is not known")
    elif not healthy:
        yield Finding("job", Verdict.SKIPPED, "not submitted, as a check above failed")
    else:
        yield from job_findings(patient, wait_seconds, tell)
