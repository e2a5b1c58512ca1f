"""What a test may choose of its Slurm cluster, and the files that Slurm reads for it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

DaemonName = Literal["munge", "db", "dbd", "ctld", "node1", "node2", "node3", "node4"]
NODES: tuple[DaemonName, ...] = ("node1", "node2", "node3", "node4")
GPUS_PER_NODE = 8
CLUSTER_NAME = "lab"
PORTS = 3 + len(NODES)
"""Of a cluster: slurmctld, slurmdbd, MariaDB, and each slurmd."""

_ACCOUNTING_SQL = """\
create database if not exists slurm_acct_db;
create user if not exists slurm@'127.0.0.1' identified by 'slurm';
grant all on slurm_acct_db.* to slurm@'127.0.0.1';
"""


class Preemption(StrEnum):
    """What makes a job more important than another."""

    PARTITION = "preempt/partition_prio"
    """Jobs of partition `high` preempt those of `low`."""
    QOS = "preempt/qos"
    """Jobs of QOS `high` preempt those of `low`."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account that jobs may be charged to, with limits as sacctmgr writes them, for example `MaxSubmitJobs=1`."""

    name: str
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The cluster's settings. Seconds throughout; the names are those of `slurm.conf`.

    `preempt_user_signal`: a preempted job gets the signal that it asked for, not SIGTERM alone. `accounts`: where there
    are any, jobs need one of them and their limits are enforced; the first is the user's default. `cred_expire`, at
    least 5, is also how long a requeued job waits.
    """

    accounting: bool = True
    preempt_user_signal: bool = True
    preemption: Preemption = Preemption.PARTITION
    accounts: tuple[Account, ...] = ()
    grace: int = 5
    kill_wait: int = 30
    min_job_age: int = 300
    slurmd_timeout: int = 30
    cred_expire: int = 5
    first_job_id: int = 1

    def __post_init__(self) -> None:
        if not self.accounting and (self.accounts or self.preemption is Preemption.QOS):
            raise ValueError("accounts and QOS live in the accounting database")

    @property
    def enforces(self) -> bool:
        """Jobs are checked against associations."""
        return bool(self.accounts) or self.preemption is Preemption.QOS


def write_files(root: Path, options: ClusterOptions, first_port: int) -> None:
    """Everything that the daemons read, below `root`."""
    for name in ("log", "pid", "munge", "state", "dev", "scratch", *(f"spool/{node}" for node in NODES)):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number in range(GPUS_PER_NODE):
        # Slurm counts GPUs with a device file only, and takes any character device for one.
        (root / f"dev/nvidia{number}").symlink_to("/dev/null")
    devices = f"{root}/dev/nvidia[0-{GPUS_PER_NODE - 1}]"
    (root / "gres.conf").write_text(f"NodeName=node[1-{len(NODES)}] Name=gpu Type=a100 File={devices}\n")
    (root / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (root / "plugstack.conf").touch()
    (root / "slurm.conf").write_text(_slurm_conf(root, options, first_port))
    key = root / "munge/key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    (root / "accounting.sql").write_text(_ACCOUNTING_SQL)
    dbd = root / "slurmdbd.conf"
    dbd.touch(mode=0o600)
    dbd.write_text(_slurmdbd_conf(root, first_port))


def _slurm_conf(root: Path, options: ClusterOptions, first_port: int) -> str:
    host = socket.gethostname().partition(".")[0]
    parts = ["preempt_send_user_signal"] if options.preempt_user_signal else []
    by_partition = options.preemption is Preemption.PARTITION
    mode = f"PreemptMode=REQUEUE GraceTime={options.grace}" if by_partition else ""
    return f"""\
ClusterName={CLUSTER_NAME}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={first_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire={options.cred_expire}
CredType=cred/munge
PlugStackConfig={root}/plugstack.conf
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/pid/slurmctld
SlurmdPidFile={root}/pid/slurmd-%n
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
{f"SlurmctldParameters={','.join(parts)}" if parts else ""}
# no cgroups, no systemd, no PAM
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
# believe this file, not the machine
SlurmdParameters=config_overrides
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
# react at once
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=100000,defer_batch
ReturnToService=2
SlurmctldTimeout=10
# a machine that is gone is asked for so long
MessageTimeout=10
SlurmdTimeout={options.slurmd_timeout}
MinJobAge={options.min_job_age}
KillWait={options.kill_wait}
CompleteWait=0
OverTimeLimit=0
JobRequeue=1
FirstJobId={options.first_job_id}
RebootProgram=/bin/true
PreemptType={options.preemption}
PreemptMode=REQUEUE
{_accounting(root, options, first_port + 1)}
JobCompType=jobcomp/none
{_nodes(host, first_port + 3)}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 {mode} MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=high Nodes=ALL Default=NO PriorityTier={10 if by_partition else 1} \
{"PreemptMode=OFF" if by_partition else ""} MaxTime=INFINITE DefaultTime=60 State=UP
"""


def _nodes(host: str, first_port: int) -> str:
    return "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={first_port + place} Sockets=2 CoresPerSocket=32 "
        f"ThreadsPerCore=1 RealMemory=1000000 Gres=gpu:a100:{GPUS_PER_NODE} State=UNKNOWN"
        for place, node in enumerate(NODES)
    )


def _accounting(root: Path, options: ClusterOptions, port: int) -> str:
    if not options.accounting:
        return "AccountingStorageType=accounting_storage/none"
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={root}/munge/socket
AccountingStorageTRES=gres/gpu,gres/gpu:a100
AccountingStoreFlags=job_comment,job_script
{"AccountingStorageEnforce=associations,limits,qos" if options.enforces else ""}"""


def _slurmdbd_conf(root: Path, first_port: int) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={first_port + 1}
SlurmUser=root
DebugLevel=info
LogFile={root}/log/slurmdbd.log
PidFile={root}/pid/slurmdbd
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={first_port + 2}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""
