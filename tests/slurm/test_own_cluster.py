"""The tests' own Slurm cluster: it is a real one, it comes back from faults, and it leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_options import Account, ClusterOptions, Preemption
from slurm_cluster import SlurmTestCluster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from slurm_fixtures import StartSlurm

HERE = Path(__file__).parent


def alive(pids: Iterable[int | str]) -> list[int | str]:
    """Those that have not ended; a zombie has."""
    return [pid for pid in pids if (exe := Path(f"/proc/{pid}/exe")).is_symlink() and exe.exists()]


def submit(cluster: SlurmTestCluster, script: str, *options: str) -> str:
    """A batch job; its id."""
    text = cluster.run("sbatch", "--parsable", "--output=/dev/null", "--open-mode=append", *options, "--wrap", script)
    return text.strip()


def state_of(cluster: SlurmTestCluster, job_id: str) -> str:
    return next((job.state for job in cluster.jobs_in_queue() if job.job_id == job_id), "")


def wait_for_state(cluster: SlurmTestCluster, job_id: str, state: str) -> None:
    cluster.wait_for(lambda: state_of(cluster, job_id) == state, f"job {job_id} {state}")


def test_a_job_on_all_gpus_of_two_machines(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    script = f"srun bash -c 'echo $CUDA_VISIBLE_DEVICES > {tmp_path}/$SLURMD_NODENAME'"
    job_id = submit(clean_slurm, script, "--nodes=2", "--gres=gpu:a100:8")
    clean_slurm.wait_for(lambda: not clean_slurm.jobs_in_queue(), "its end")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "node1": "0,1,2,3,4,5,6,7\n",
        "node2": "0,1,2,3,4,5,6,7\n",
    }

    def row() -> bool:
        return any(row.job_id == job_id and row.state == "COMPLETED" for row in clean_slurm.sacct_rows())

    clean_slurm.wait_for(row, "the books")
    booked = next(row for row in clean_slurm.sacct_rows() if row.job_id == job_id)
    assert "gres/gpu:a100=16" in booked.allocated.split(",")
    assert "node=2" in booked.allocated.split(",")
    assert booked.restart == 0


def test_the_important_preempt_the_others_with_their_signal(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    heard, listens = tmp_path / "heard", tmp_path / "listens"
    script = f"trap 'echo yes > {heard}' USR1; touch {listens}; while :; do sleep 0.1; done"
    low = submit(clean_slurm, script, "--nodes=4", "--exclusive", "--signal=B:USR1@60", "--time=60")
    clean_slurm.wait_for(listens.exists, "its trap")
    high = submit(clean_slurm, "true", "--partition=high", "--nodes=4", "--exclusive")
    clean_slurm.wait_for(lambda: not state_of(clean_slurm, high), "the important job")
    assert heard.read_text() == "yes\n"
    wait_for_state(clean_slurm, low, "RUNNING")
    clean_slurm.wait_for(
        lambda: [row.restart for row in clean_slurm.sacct_rows() if row.job_id == low] == [0, 1], "both runs"
    )


def test_a_machine_may_lose_slurm_and_keep_its_processes(clean_slurm: SlurmTestCluster, tmp_path: Path) -> None:
    beats = tmp_path / "beats"
    job_id = submit(clean_slurm, f"while :; do echo >> {beats}; sleep 0.1; done", "--nodelist=node2", "--no-requeue")
    clean_slurm.wait_for(beats.exists, "the job's first word")
    clean_slurm.kill_node("node2")
    wait_for_state(clean_slurm, job_id, "")
    size = beats.stat().st_size
    clean_slurm.wait_for(lambda: beats.stat().st_size > size, "a write of the dead job")
    clean_slurm.start("node2")
    clean_slurm.clear()
    assert clean_slurm.node_states() == ["idle"] * 4


def test_what_was_cleared_is_gone(clean_slurm: SlurmTestCluster) -> None:
    held = submit(clean_slurm, "sleep 600", "--hold")
    stubborn = submit(clean_slurm, "trap '' TERM; while :; do sleep 1; done")
    suspended = submit(clean_slurm, "sleep 600")
    for job_id in (stubborn, suspended):
        wait_for_state(clean_slurm, job_id, "RUNNING")
    clean_slurm.run("scontrol", "suspend", suspended)
    clean_slurm.run("scontrol", "update", "NodeName=node4", "State=DRAIN", "Reason=test")
    clean_slurm.freeze("ctld")
    clean_slurm.stop("dbd", signal.SIGKILL)
    clean_slurm.clear()
    assert not {held, stubborn, suspended} & {job.job_id for job in clean_slurm.jobs_in_queue()}
    assert clean_slurm.node_states() == ["idle"] * 4


def test_clusters_side_by_side(clean_slurm: SlurmTestCluster, start_slurm: StartSlurm) -> None:
    other = start_slurm(ClusterOptions(accounting=False, preempt_user_signal=False, first_job_id=1000))
    assert submit(other, "sleep 600") == "1000"
    assert clean_slurm.jobs_in_queue() == []
    assert "disabled" in other.ask("sacct").stderr


def test_accounts_have_limits_and_qos_preempts(start_slurm: StartSlurm) -> None:
    accounts = (Account("lab"), Account("small", ("MaxJobs=1",)))
    cluster = start_slurm(ClusterOptions(accounts=accounts, preemption=Preemption.QOS, grace=0, cred_expire=5))
    assert "account" in cluster.ask("sbatch", "--account=nobody", "--wrap", "true").stderr
    first = submit(cluster, "sleep 600", "--account=small")
    second = submit(cluster, "sleep 600", "--account=small")
    wait_for_state(cluster, first, "RUNNING")
    cluster.wait_for(
        lambda: any(job.job_id == second and job.reason == "AssocMaxJobsLimit" for job in cluster.jobs_in_queue()),
        "the limit",
    )
    low = submit(cluster, "sleep 600", "--nodes=4", "--exclusive")
    cluster.run("scancel", first, second)
    wait_for_state(cluster, low, "RUNNING")
    high = submit(cluster, "sleep 600", "--nodes=4", "--exclusive", "--qos=high")
    wait_for_state(cluster, high, "RUNNING")
    wait_for_state(cluster, low, "PENDING")


OWNER = """
import sys
sys.path[:0] = sys.argv[1:]
from slurm_cluster import SlurmTestCluster
from cluster_options import ClusterOptions
cluster = SlurmTestCluster(ClusterOptions(accounting=False))
cluster.up()
cluster.run("sbatch", "--output=/dev/null", "--wrap", "trap '' TERM; sleep 600")
cluster.wait_for(lambda: cluster.jobs_in_queue()[0].state == "RUNNING", "the job")
print(cluster.root, *cluster.processes(), flush=True)
sys.stdin.read()
"""


def test_nothing_outlives_the_owner_of_a_cluster(clean_slurm: SlurmTestCluster) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(HERE), str(HERE.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    root, *pids = owner.stdout.readline().split()
    assert len(pids) >= 7
    owner.kill()
    owner.wait()
    clean_slurm.wait_for(lambda: not Path(root).exists(), "its reaper")
    assert not alive(pids)


def test_a_wiped_cluster_leaves_no_process() -> None:
    cluster = SlurmTestCluster(ClusterOptions(accounting=False))
    cluster.up()
    job_id = submit(cluster, "setsid sleep 600 & sleep 600")
    wait_for_state(cluster, job_id, "RUNNING")
    pids = cluster.processes()
    cluster.kill_node("node1")
    cluster.wipe()
    assert not cluster.root.exists()
    assert cluster.processes() == []
    assert not alive(pids)
