"""What Slurm's words for a job's state mean."""

from __future__ import annotations

from llmzero_hpc.cluster.base import JobState

_WORDS = {
    JobState.PENDING: "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD SPECIAL_EXIT RESV_DEL_HOLD EXPEDITING",
    JobState.RUNNING: "RUNNING RESIZING SUSPENDED COMPLETING STOPPED SIGNALING STAGE_OUT UPDATE_DB",
    JobState.COMPLETED: "COMPLETED",
    JobState.FAILED: "FAILED OUT_OF_MEMORY",
    JobState.CANCELLED: "CANCELLED REVOKED",
    JobState.TIME_LIMIT: "TIMEOUT DEADLINE",
    JobState.PREEMPTED: "PREEMPTED",
    JobState.NODE_FAILURE: "NODE_FAIL BOOT_FAIL LAUNCH_FAILED RECONFIG_FAIL",
}
STATES = {word: state for state, words in _WORDS.items() for word in words.split()}
"""The state behind each of Slurm's words, squeue's and sacct's alike."""


def state_of(text: str) -> JobState | None:
    """The state that squeue or sacct wrote, also as `CANCELLED by 1000`; None for a word of a later Slurm."""
    words = text.split()
    return STATES.get(words[0].rstrip("+")) if words else None
