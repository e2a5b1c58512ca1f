#!/bin/bash

# Parameters
#SBATCH --comment='llmzero-hpc: search demo-2, phase 0003, attempt 2'
#SBATCH --cpus-per-task=4
#SBATCH --error='/project/my state/demo-2/phases/0003/attempts/2/submission/%j_0_log.err'
#SBATCH --job-name=lz-demo-2-k3j4-0003-2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/project/my state/demo-2/phases/0003/attempts/2/submission/%j_0_log.out'
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=1440

# setup
if ! command -v module >/dev/null; then
    for init in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" "${MODULESHOME:-/usr/share/modules}/init/bash" /etc/profile.d/{lmod,modules}.sh; do
        # shellcheck source=/dev/null
        if [ -r "$init" ]; then . "$init"; break; fi
    done
fi
module load gcc/12.3 || { echo 'llmzero-hpc: module gcc/12.3 cannot be loaded' >&2; exit 1; }
module load cuda/12.4 || { echo 'llmzero-hpc: module cuda/12.4 cannot be loaded' >&2; exit 1; }
export TMPDIR="${SLURM_TMPDIR:?}/phases/llmzero-$SLURM_JOB_ID"
on_each_machine() { timeout 60 srun --ntasks-per-node=1 "$@"; }
on_each_machine mkdir -p "$TMPDIR" || exit 1
trap 'on_each_machine rm -rf "$TMPDIR"' EXIT
ulimit -n 65536
# with --export=NONE, srun would not pass on what was set above
unset SLURM_EXPORT_ENV

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/project/my state/demo-2/phases/0003/attempts/2/submission/%j_%t_log.out' --error '/project/my state/demo-2/phases/0003/attempts/2/submission/%j_%t_log.err' --kill-on-bad-exit=1 --cpus-per-task=4 /project/venv/bin/python -u -m submitit.core._submit '/project/my state/demo-2/phases/0003/attempts/2/submission'
