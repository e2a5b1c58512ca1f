#!/bin/bash

# Parameters
#SBATCH --account=proj-42
#SBATCH --comment='llmzero-hpc: search demo-2, phase 0003, attempt 2'
#SBATCH --constraint='[rack1|rack2]'
#SBATCH --cpus-per-task=96
#SBATCH --error='/project/my state/demo-2/phases/0003/attempts/2/submission/%j_0_log.err'
#SBATCH --exclude='node[07-09],node12,node[1-2]'
#SBATCH --exclusive
#SBATCH --gpus-per-node=nvidia_h100_80gb:8
#SBATCH --job-name=lz-demo-2-k3j4-0003-2
#SBATCH --mail-type=END,FAIL
#SBATCH --mail-user='o'"'"'hara@example.org'
#SBATCH --mem=921600M
#SBATCH --nice=100
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/project/my state/demo-2/phases/0003/attempts/2/submission/%j_0_log.out'
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --reservation=maintenance-2
#SBATCH --signal=USR2@30
#SBATCH --spread-job
#SBATCH --time=1

# setup
if ! command -v module >/dev/null; then
    for init in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" "${MODULESHOME:-/usr/share/modules}/init/bash" /etc/profile.d/{lmod,modules}.sh; do
        # shellcheck source=/dev/null
        if [ -r "$init" ]; then . "$init"; break; fi
    done
fi
module load apptainer || { echo 'llmzero-hpc: module apptainer cannot be loaded' >&2; exit 1; }
llmzero_scratch="/scratch/${USER:?}/caches"
export HF_HOME="${HF_HOME:-$llmzero_scratch/huggingface}"
export XDG_CACHE_HOME="${XDG_CACHE_HOME:-$llmzero_scratch/cache}"
export VLLM_CACHE_ROOT="${VLLM_CACHE_ROOT:-$llmzero_scratch/vllm}"
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-$llmzero_scratch/triton}"
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$llmzero_scratch/inductor}"
export TMPDIR="/local scratch/llmzero-$SLURM_JOB_ID"
on_each_machine() { timeout 60 srun --ntasks-per-node=1 "$@"; }
on_each_machine mkdir -p "$TMPDIR" || exit 1
trap 'on_each_machine rm -rf "$TMPDIR"' EXIT
export OMP_NUM_THREADS=8
export GREETING='it'"'"'s "$HOME"; `date`'
NCCL_SOCKET_IFNAME="$(ip -o route show default | cut -d' ' -f5)"
export NCCL_SOCKET_IFNAME
echo "it's ready"
# with --export=NONE, srun would not pass on what was set above
unset SLURM_EXPORT_ENV

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/project/my state/demo-2/phases/0003/attempts/2/submission/%j_%t_log.out' --error '/project/my state/demo-2/phases/0003/attempts/2/submission/%j_%t_log.err' --kill-on-bad-exit=1 --cpus-per-task=96 --mpi=none --cpu-bind=none apptainer exec --nv /images/grpo.sif /project/venv/bin/python -u -m submitit.core._submit '/project/my state/demo-2/phases/0003/attempts/2/submission'
