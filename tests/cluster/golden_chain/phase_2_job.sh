#!/bin/bash

# Parameters
#SBATCH --account=proj-42
#SBATCH --comment=llmzero-hpc
#SBATCH --constraint='a100&80g'
#SBATCH --cpus-per-task=64
#SBATCH --error='/project/my strategy/jobs/logs/%j_0_log.err'
#SBATCH --gres=gpu:a100:8
#SBATCH --job-name=strategy-demo-2-phase_2
#SBATCH --mem=492032M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/project/my strategy/jobs/logs/%j_0_log.out'
#SBATCH --partition=gpu,gpu-long
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=1440

# setup
# with --export=NONE, srun would not pass on what was set above
unset SLURM_EXPORT_ENV

# command
srun --unbuffered --kill-on-bad-exit=1 --cpus-per-task=64 --mpi=none /home/me/.venv/bin/python3 -u -m llmzero_hpc.cluster.chain_job rehearsal train '/project/my strategy/jobs/phase_2'
